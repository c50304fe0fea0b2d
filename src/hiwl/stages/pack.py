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
from hiwl.model.pixels import PackParams
from hiwl.survey import contracts
from hiwl.survey.packing import pack
from hiwl.survey.pictures import look
from hiwl.survey.tables import read_table


def main() -> None:
    """Decode the clean selection and hold the result to its contract."""
    params = PackParams.parse(read_section("pack"), "pack")
    clean = read_table(CLEAN_TABLE, [ID])
    pictures = look(RAW_IMAGES)
    names = [str(pictures.of(galaxy)) for galaxy in clean[ID]]
    with replacing(PACKED_IMAGES) as beside:
        decoded = pack(RAW_IMAGES, names, params, beside, settings().workers)
        check(clean.join(decoded), params, beside)
    with replacing(PACKED_INDEX) as beside:
        clean.to_csv(beside, index=False)
    told = decoded[["warning"]].assign(name=names)[decoded["warning"] != ""]
    if len(told):
        first = told.iloc[0]
        print(f"pack: warning: {len(told)} of {len(clean)} pictures, the first {first['name']}: {first['warning']}")
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
