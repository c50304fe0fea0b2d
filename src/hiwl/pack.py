"""Stage `pack`: decode every picture once, so that nothing after it ever opens a JPEG again.

Writes to ``data/packed``: ``images.npy``, (galaxies, side, side, 3) uint8, to be memory-mapped; ``index.csv``, the
GalaxyID of each row; and the contract's results. Depends on the selection alone, not on the split.
"""

import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from tqdm import tqdm

from hiwl import contracts
from hiwl.files import replacing
from hiwl.images import Pixels, decode, members
from hiwl.layout import CLEAN_TABLE, PACKED, PACKED_IMAGES, PACKED_INDEX, RAW_IMAGES
from hiwl.params import Section, read_section
from hiwl.settings import settings
from hiwl.votes import ID

CHUNK = 256  # pictures a process decodes at a time


class PackParams(Section):
    """Section `pack`."""

    crop: int = Field(gt=0)
    """Side of the central square that is kept, in pixels of the survey's pictures (the paper: 256)."""
    side: int = Field(gt=0)
    """Side of the square as packed, in pixels; smaller than `crop` by area averaging."""

    @model_validator(mode="after")
    def _side_within_crop(self) -> "PackParams":
        if self.side > self.crop:
            raise ValueError(f"side ({self.side}) must not exceed crop ({self.crop})")
        return self


def main() -> None:
    """Decode the clean selection and hold the result to its contract."""
    params = PackParams.parse(read_section("pack"), "pack")
    clean = pd.read_csv(CLEAN_TABLE, usecols=[ID])
    names = clean[ID].map(members(RAW_IMAGES))
    with replacing(PACKED_IMAGES) as beside:
        decoded = pack(RAW_IMAGES, names.tolist(), params, beside, settings().workers)
        check(clean.join(decoded), params, beside)
    with replacing(PACKED_INDEX) as beside:
        clean.to_csv(beside, index=False)
    print(f"pack: {len(clean)} images of {params.side} x {params.side} pixels")


def pack(archive: Path, names: list[str], params: PackParams, to: Path, workers: int) -> pd.DataFrame:
    """Decode the members `names` of `archive` into the array file `to`, in that order.

    Returns a table with a row for each member: `error` (empty where it was decoded) and `contrast`, the largest
    difference between two of its values, 0 for a blank picture.
    """
    shape = (len(names), params.side, params.side, 3)
    np.lib.format.open_memmap(to, mode="w+", dtype=np.uint8, shape=shape).flush()
    starts = range(0, len(names), CHUNK)
    jobs = [(archive, names[start : start + CHUNK], params, to, start) for start in starts]
    reports: list[pd.DataFrame] = []
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool,
        tqdm(total=len(names), desc="packing", unit="image") as progress,
    ):
        for report in pool.map(_pack_chunk, jobs):
            reports.append(report)
            progress.update(len(report))
    return pd.concat(reports, ignore_index=True)


def _pack_chunk(job: tuple[Path, list[str], PackParams, Path, int]) -> pd.DataFrame:
    archive, names, params, to, start = job
    packed: Pixels = np.load(to, mmap_mode="r+")
    report = []
    for row, name in enumerate(names, start):
        try:
            packed[row] = decode(_open(archive).read(name), params.crop, params.side)
            report.append(("", int(np.ptp(packed[row]))))
        except Exception as error:  # of the picture or of its member in the archive: the contract names it
            report.append((f"{name}: {error}", 0))
    return pd.DataFrame(report, columns=["error", "contrast"])


@cache
def _open(archive: Path) -> zipfile.ZipFile:
    """Once a process: reading the list of a large archive takes half a second."""
    return zipfile.ZipFile(archive)


def check(frame: pd.DataFrame, params: PackParams, images: Path) -> None:
    """Hold the pack to its contract: shape and type of the array, every picture decoded, none blank."""
    import great_expectations.expectations as gxe

    packed = np.load(images, mmap_mode="r")
    frame = frame.assign(shape=str(packed.shape), dtype=str(packed.dtype))
    expected = (len(frame), params.side, params.side, 3)
    contracts.enforce(
        "pack",
        frame,
        [
            gxe.ExpectColumnValuesToBeInSet(column="shape", value_set=[str(expected)]),
            gxe.ExpectColumnValuesToBeInSet(column="dtype", value_set=["uint8"]),
            gxe.ExpectColumnValuesToBeInSet(column="error", value_set=[""]),
            gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=1),
        ],
        PACKED / "validation",
    )
