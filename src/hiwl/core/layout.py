"""Where each stage leaves its outputs, in the order of the pipeline; the column that every table has, and a
split's parts."""

from pathlib import Path

from hiwl.core.errors import HiwlError

ID = "GalaxyID"
PARTS = ("training", "validation", "test")

RAW = Path("data/raw")
RAW_IMAGES = RAW / "images.zip"
RAW_TABLE = RAW / "table.csv"  # votes, or GalaxyID,class
RAW_MANIFEST = RAW / "manifest.json"

CLEAN = Path("data/clean")
CLEAN_TABLE = CLEAN / "clean.csv"  # GalaxyID, class, the votes that decided it

SPLITS = Path("data/splits")
SPLITS_TABLE = SPLITS / "splits.csv"  # GalaxyID, class, split

PACKED = Path("data/packed")
PACKED_IMAGES = PACKED / "images.npy"  # (galaxies, side, side, 3) uint8
PACKED_INDEX = PACKED / "index.csv"  # GalaxyID of each row

NODES = Path("models/nodes")  # <tree>/<node>: node.json, record.json, the best checkpoints
CHOICE = Path("models/choice")  # choice.json and the checkpoints that it names: a model to load

REPORTS = Path("reports")
CURVES = REPORTS / "curves"  # git's: <node>.csv, loss and accuracy by epoch
VALIDATION = REPORTS / "validation.json"  # git's: what the choice measured on validation
SERVED = Path("models/served")

FIGURES = Path("figures")  # neither DVC's nor git's: pictures of real galaxies

PRETRAINED = Path("pretrained")  # git's: published weights, one folder a model

WORK = Path(".work")  # in the project's root: what a killed stage resumes from; no stage's output


def pretrained(weights: str | Path) -> Path:
    """The folder of published `weights`: a name in ``pretrained``, here or as it came with hiwl, or itself a folder.

    Raises:
        HiwlError: there is none; it names those that there are.
    """
    # What came with the package: inside an installed one, in the root of a checkout.
    shelves = [PRETRAINED, Path(__file__).parents[1] / PRETRAINED, Path(__file__).parents[3] / PRETRAINED]
    for folder in (Path(weights), *(shelf / weights for shelf in shelves)):
        if (folder / "choice.json").exists():
            return folder
    there = sorted({path.parent.name for shelf in shelves for path in shelf.glob("[!.]*/choice.json")})
    raise HiwlError(
        f"{weights}: not a folder with choice.json; published weights are {', '.join(there) or 'not there'}"
    )
