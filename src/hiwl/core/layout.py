"""Where each stage leaves its outputs, in the order of the pipeline; and the column that every table has."""

from pathlib import Path

from hiwl.core.errors import HiwlError

ID = "GalaxyID"

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

NODES = Path("models/nodes")  # <tree>/<node>: node.json, history.csv, the best checkpoints
CHOICE = Path("models/choice")  # choice.json and the checkpoints that it names: a model to load

REPORTS = Path("reports")
SERVED = Path("models/served")

FIGURES = Path("figures")  # neither DVC's nor git's: pictures of real galaxies

PRETRAINED = Path("pretrained")  # git's: published weights, one folder a model

WORK = Path(".work")  # in the project's root: what a killed stage resumes from; no stage's output


def pretrained(weights: str | Path) -> Path:
    """The folder of published `weights`: a name in ``pretrained`` of this folder or of hiwl's own, or itself a folder.

    Raises:
        HiwlError: there is none; it names those that there are.
    """
    own = Path(__file__).parents[3] / PRETRAINED
    for folder in (Path(weights), PRETRAINED / weights, own / weights):
        if (folder / "choice.json").exists():
            return folder
    there = sorted({path.parent.name for folder in (PRETRAINED, own) for path in folder.glob("*/choice.json")})
    raise HiwlError(
        f"{weights}: not a folder with choice.json; published weights are {', '.join(there) or 'not there'}"
    )
