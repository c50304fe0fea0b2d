"""Draw docs/galaxies.jpg, and pick src/hiwl/model/galaxy.jpg, from the simulated survey.

Run in the project's root, after stage `raw`. Simulated galaxies only: the pictures of real surveys are not ours to
pass on.
"""

import io
import json
import sys
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hiwl.core.layout import CLEAN_TABLE, RAW_IMAGES, RAW_MANIFEST
from hiwl.survey.pictures import look
from hiwl.survey.tables import read_table

NAMES = {
    "CRS": "completely round",
    "IBS": "in between",
    "CSS": "cigar-shaped",
    "EO": "edge-on",
    "SPI": "spiral",
}
SIDE, EACH = 150, 3


def main() -> None:
    if json.loads(RAW_MANIFEST.read_text())["source"] != "simulated":
        sys.exit(f"{RAW_MANIFEST}: not a simulated survey")
    clean = read_table(CLEAN_TABLE)
    sheet = Image.new("RGB", (SIDE * len(NAMES), SIDE * EACH + 22), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    with zipfile.ZipFile(RAW_IMAGES) as archive:
        names = look(RAW_IMAGES)
        for column, (name, words) in enumerate(NAMES.items()):
            pen.text((column * SIDE + SIDE / 2, 11), f"{name}: {words}", "black", font, "mm")
            for row, galaxy in enumerate(clean.loc[clean["class"] == name, "GalaxyID"][:EACH]):
                content = archive.read(str(names.of(galaxy)))
                picture = Image.open(io.BytesIO(content)).crop((84, 84, 340, 340)).resize((SIDE, SIDE))
                sheet.paste(picture, (column * SIDE, row * SIDE + 22))
                if (name, row) == ("SPI", 0):
                    Path("src/hiwl/model/galaxy.jpg").write_bytes(content)
    sheet.save("docs/galaxies.jpg", quality=85)


main()
