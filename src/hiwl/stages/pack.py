"""Stage `pack`: decode every picture once, so that nothing after it ever opens a JPEG again.

Writes to ``data/packed``: ``images.npy``, (galaxies, side, side, 3) uint8, to be memory-mapped; ``index.csv``, the
GalaxyID of each row; and the contract's results. Depends on the selection alone, not on the split.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from hiwl.core.files import replacing
from hiwl.core.layout import CLEAN_TABLE, ID, PACKED, PACKED_IMAGES, PACKED_INDEX, RAW_IMAGES
from hiwl.core.section import read_section
from hiwl.core.settings import settings
from hiwl.survey import contracts
from hiwl.survey.archives import members
from hiwl.survey.packing import PackParams, pack


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
