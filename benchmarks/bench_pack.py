"""Packing: one process against all cores, and the peak memory of packing 28,793 pictures (goal: under 1 GB)."""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from common import jpegs, machine, peak_memory, seconds, spread
from hiwl.model.pixels import PackParams
from hiwl.survey.packing import pack

COUNT, SURVEY = 2000, 28_793
PARAMS = PackParams(crop=256, side=64)


def archive_of(count: int, folder: Path) -> tuple[Path, list[str]]:
    """A zip of `count` pictures (fifty of them, again and again), and its members."""
    path = folder / f"{count}.zip"
    names, pictures = [f"{number}.jpg" for number in range(count)], jpegs(50)
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(names):
            file.writestr(name, pictures[number % len(pictures)])
    return path, names


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        archive, names = archive_of(COUNT, Path(folder))
        found = {
            workers: seconds(lambda w=workers: pack(archive, names, PARAMS, Path(folder, "images.npy"), w), 3)  # type: ignore[misc]
            for workers in (1, os.cpu_count() or 1)
        }
        for workers, times in found.items():
            print(f"{COUNT} pictures, {workers} processes: {spread([COUNT / t for t in times], 'images/s')}")
        one, every = (min(times) for times in found.values())
        print(f"ratio all cores / one: {one / every:.2f}")

        archive_of(SURVEY, Path(folder))
        whole = subprocess.Popen([sys.executable, __file__, folder], start_new_session=True, stderr=subprocess.DEVNULL)
        peak = 0.0
        while whole.poll() is None:
            peak = max(peak, peak_memory(whole.pid))
            time.sleep(0.1)
        assert whole.returncode == 0
        print(f"{SURVEY} pictures: all processes together {peak:.0f} MB at their peaks, beyond the page cache")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        here = Path(sys.argv[1])
        members = [f"{number}.jpg" for number in range(SURVEY)]
        pack(here / f"{SURVEY}.zip", members, PARAMS, here / "whole.npy", os.cpu_count() or 1)
    else:
        main()
