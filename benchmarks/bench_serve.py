"""`hiwl serve` of pretrained/small under 1, 8 and 32 clients of 1 and of 64 pictures: images a second, latency."""

import base64
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import requests

from common import galaxies, machine, peak_memory

SECONDS = 8


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["hiwl", "serve", "--weights", "small", "--port", str(port)]
    server = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/ready")
        kind, pictures = galaxies(512)
        print(machine(), kind)
        print(f"peak memory of the server: {peak_memory(server.pid):.0f} MB before")
        texts = [base64.b64encode(content).decode() for content in pictures]
        for number in (1, 64):
            for clients in (1, 8, 32):
                print(load(f"http://127.0.0.1:{port}/invocations", texts, number, clients))
        print(f"peak memory of the server: {peak_memory(server.pid):.0f} MB after")
    finally:
        os.killpg(server.pid, signal.SIGKILL)


def load(address: str, texts: list[str], number: int, clients: int) -> str:
    """Every client asks for `number` others as soon as it is answered."""
    bodies = itertools.cycle(
        [json.dumps({"inputs": {"image": texts[start : start + number]}}) for start in range(0, len(texts), number)]
    )
    headers = {"Content-Type": "application/json"}
    times: list[float] = []
    until = time.monotonic() + SECONDS

    def ask() -> None:
        session = requests.Session()
        while time.monotonic() < until:
            start = time.perf_counter()
            answer = session.post(address, next(bodies), headers=headers, timeout=120)
            assert len(answer.json()["predictions"]) == number
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    speed = len(times) * number / (time.perf_counter() - start)
    middle, late = np.quantile(times, (0.5, 0.99))
    return (
        f"{clients} clients of {number} pictures: {speed:.0f} images/s, p50 {middle:.3f} s, p99 {late:.3f} s "
        f"(n = {len(times)})"
    )


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
