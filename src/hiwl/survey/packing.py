"""Decoding every picture once, into one array."""

import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from hiwl.model.pixels import PackParams, Pixels, decode

Job = tuple[Path, list[str], PackParams, Path, int]
CHUNK = 256  # pictures a process decodes at a time


def pack(archive: Path, names: list[str], params: PackParams, to: Path, workers: int) -> pd.DataFrame:
    """Decode the members `names` of `archive` into the array file `to`, in that order.

    Returns a table with a row for each member: `error` (empty where it was decoded), `contrast`, the largest
    difference between two of its values, 0 for a blank picture, and `warning`, what was done to it beyond cropping.
    """
    shape = (len(names), params.side, params.side, 3)
    np.lib.format.open_memmap(to, mode="w+", dtype=np.uint8, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):  # a disk that is too small says so now, not by killing who writes to the map
        with to.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, to.stat().st_size)
    starts = range(0, len(names), CHUNK)
    jobs = [(archive, names[start : start + CHUNK], params, to, start) for start in starts]
    reports: list[pd.DataFrame] = []
    with tqdm(total=len(names), desc="packing", unit="image") as progress:
        for report in _reports(jobs, workers):
            reports.append(report)
            progress.update(len(report))
    return pd.concat(reports, ignore_index=True)


def _reports(jobs: list[Job], workers: int) -> Iterator[pd.DataFrame]:
    if workers == 1:
        yield from map(_pack_chunk, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        yield from pool.map(_pack_chunk, jobs)


def _pack_chunk(job: Job) -> pd.DataFrame:
    archive, names, params, to, start = job
    packed: Pixels = np.load(to, mmap_mode="r+")
    report, opened = [], _open(archive.resolve(), archive.stat().st_mtime_ns)
    for row, name in enumerate(names, start):
        try:
            packed[row], warning = decode(opened.read(name), params)
            report.append(("", int(np.ptp(packed[row])), warning))
        except Exception as error:  # of the picture or of its member in the archive: the contract names it
            report.append((f"{name}: {error}", 0, ""))
    return pd.DataFrame(report, columns=["error", "contrast", "warning"])


@cache
def _open(archive: Path, changed: int) -> zipfile.ZipFile:
    """Once a process, unless the file has `changed`: reading the list of a large archive takes half a second."""
    return zipfile.ZipFile(archive)
