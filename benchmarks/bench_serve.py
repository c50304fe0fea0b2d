"""1,000 images in one Parquet request to `mlflow models serve` of models/served: images a second, peak memory."""

import io
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import requests

from common import jpegs, machine, peak_memory, seconds, spread

COUNT = 1000


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "-m", "models/served", "--env-manager", "local", "-p", str(port)]
    server = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/ping")
        idle = peak_memory(server.pid)
        buffer = io.BytesIO()
        pd.DataFrame({"image": jpegs(50) * (COUNT // 50)}).to_parquet(buffer)

        def ask() -> None:
            answer = requests.post(
                f"http://127.0.0.1:{port}/invocations",
                data=buffer.getvalue(),
                headers={"Content-Type": "application/vnd.apache.parquet"},
                timeout=600,
            )
            rows = answer.json()["predictions"]
            assert len(rows) == COUNT
            assert all(row["error"] is None for row in rows)

        times = seconds(ask, 3)
        print(machine())
        print(f"{COUNT} images in one Parquet request: {spread([COUNT / t for t in times], 'images/s')}")
        print(f"peak memory of the server: {idle:.0f} MB before, {peak_memory(server.pid):.0f} MB after")
    finally:
        os.killpg(server.pid, signal.SIGKILL)


def wait_for(server: "subprocess.Popen[bytes]", address: str) -> None:
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(address, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.3)
    sys.exit("the server does not answer")


main()
