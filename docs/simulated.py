"""What a model trained on real galaxies makes of the simulated ones: writes docs/simulated.md.

Run in the project's root with the simulated survey in data/:

    python docs/simulated.py best

With two more arguments, REAL_IMAGES.zip and LABELS.csv (GalaxyID,class), it also draws beside.png in the working
folder, simulated galaxies left of real ones: to look at, not to keep, since real pictures are not ours to pass on.
"""

import io
import json
import sys
import zipfile
from pathlib import Path

import pandas as pd
from PIL import Image

import hiwl
from hiwl.core.layout import CLEAN_TABLE, RAW_IMAGES, RAW_MANIFEST
from hiwl.measure.intervals import wilson
from hiwl.survey.pictures import look
from hiwl.survey.tables import read_table

CLASSES = ["CRS", "IBS", "CSS", "EO", "SPI"]
SIDE, EACH = 132, 5


def main(model: str, *real: str) -> None:
    if json.loads(RAW_MANIFEST.read_text())["source"] != "simulated":
        sys.exit(f"{RAW_MANIFEST}: not a simulated survey")
    clean = read_table(CLEAN_TABLE)
    names = look(RAW_IMAGES)
    with zipfile.ZipFile(RAW_IMAGES) as archive:
        pictures = [archive.read(str(names.of(galaxy))) for galaxy in clean["GalaxyID"]]
    answers = hiwl.load(model)(pictures)["answer"]
    right = int((answers == clean["class"]).sum())
    low, high = wilson(right, len(clean))
    table = pd.crosstab(clean["class"], answers).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
    lines = [
        "# What a model of real galaxies makes of the simulated ones",
        "",
        f"Written by `python docs/simulated.py {model}`. The model has seen real galaxies only; the classes are those",
        f"that the simulated votes give. It agrees on {right} of {len(clean)}: {100 * right / len(clean):.1f} %",
        f"({100 * low:.1f} to {100 * high:.1f}, Wilson, 95 %). Rows: by the votes; columns: by the model.",
        "",
        "| | " + " | ".join(CLASSES) + " | agreed |",
        "|" + " --- |" * (len(CLASSES) + 2),
        *(
            f"| {name} | " + " | ".join(map(str, row)) + f" | {100 * row[name] / row.sum():.1f} % |"
            for name, row in table.iterrows()
        ),
    ]
    Path("docs/simulated.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if real:
        beside(clean, Path(real[0]), read_table(Path(real[1])))


def beside(clean: pd.DataFrame, real_images: Path, real_table: pd.DataFrame) -> None:
    sheet = Image.new("RGB", (SIDE * (2 * EACH) + 10, SIDE * len(CLASSES)), "white")
    for half, (archive_path, table) in enumerate(((RAW_IMAGES, clean), (real_images, real_table))):
        names = look(archive_path)
        with zipfile.ZipFile(archive_path) as archive:
            for row, name in enumerate(CLASSES):
                for column, galaxy in enumerate(
                    table.loc[table["class"] == name, "GalaxyID"].sample(EACH, random_state=1)
                ):
                    picture = Image.open(io.BytesIO(archive.read(str(names.of(galaxy)))))
                    left, top = (picture.width - 256) // 2, (picture.height - 256) // 2
                    picture = picture.crop((left, top, left + 256, top + 256)).resize((SIDE, SIDE))
                    sheet.paste(picture, ((half * EACH + column) * SIDE + 10 * half, row * SIDE))
    sheet.save("beside.png")


main(*sys.argv[1:])
