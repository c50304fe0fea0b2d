"""`hiwl spark` of pretrained/small on one core and on two, and what a survey of a billion galaxies would cost.

Starting Spark and loading the model is measured apart, on a table of few pictures, and taken off.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from common import galaxies, machine

FEW, MANY = 32, 1056
SURVEY = 1e9


def main() -> None:
    if importlib.util.find_spec("pyspark") is None:
        print("pyspark is not installed: pip install '.[spark]'")
        return
    kind, pictures = galaxies(MANY)
    print(machine(), kind)
    with tempfile.TemporaryDirectory() as scratch:
        for number in (FEW, MANY):
            folder = Path(scratch, str(number))
            folder.mkdir()
            for start in range(8):
                table = pd.DataFrame({"image": pictures[start:number:8]})
                table.to_parquet(folder / f"{start}.parquet")
        speeds = {cores: speed(Path(scratch), cores) for cores in (1, 2)}
    for cores, images in speeds.items():
        hours = SURVEY * cores / images / 3600
        print(f"{cores} cores: {images:.0f} images/s; {SURVEY:.0e} galaxies: {hours:.0f} core hours")
    print(f"2 cores / 1: {speeds[2] / speeds[1]:.2f} times")


def speed(scratch: Path, cores: int) -> float:
    """Images a second, the start taken off."""
    environment = os.environ | {"PYSPARK_SUBMIT_ARGS": f"--master local[{cores}] pyspark-shell"}
    environment["PYSPARK_PYTHON"] = sys.executable
    taken = {}
    for number in (FEW, MANY):
        tables = [str(scratch / str(number)), str(scratch / f"{number}-{cores}")]
        command = ["hiwl", "spark", *tables, "--weights", "small"]
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken[number] = time.perf_counter() - start
    return (MANY - FEW) / (taken[MANY] - taken[FEW])


main()
