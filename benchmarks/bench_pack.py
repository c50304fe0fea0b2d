"""Packing, one process against all cores; peak memory of the largest process beyond its imports."""

import os
import resource
import tempfile
import zipfile
from pathlib import Path

from common import jpegs, machine, seconds, spread
from hiwl.pack import PackParams, pack

COUNT = 2000
PARAMS = PackParams(crop=256, size=64)


def main() -> None:
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "images.zip")
        pictures = jpegs(50)
        with zipfile.ZipFile(archive, "w") as file:
            for number in range(COUNT):
                file.writestr(f"{number}.jpg", pictures[number % len(pictures)])
        names = [f"{number}.jpg" for number in range(COUNT)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = {
            workers: seconds(lambda w=workers: pack(archive, names, PARAMS, Path(folder, "images.npy"), w), 3)  # type: ignore[misc]
            for workers in (1, os.cpu_count() or 1)
        }
        after = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    for workers, times in found.items():
        print(f"{COUNT} pictures, {workers} processes: {spread([COUNT / t for t in times], 'images/s')}")
    one, every = (min(times) for times in found.values())
    print(f"ratio all cores / one: {one / every:.2f}")
    print(f"peak resident memory: {before / 1024:.0f} MB before, {after / 1024:.0f} MB after")


if __name__ == "__main__":
    main()
