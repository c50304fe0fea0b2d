"""Where each stage leaves its outputs, in the order of the pipeline."""

from pathlib import Path

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

NODES = Path("models/nodes")  # one folder a node: node.json, history.csv, the best checkpoints

CHOICE = Path("models/choice")
CHOICE_FILE = CHOICE / "choice.json"
CHOICE_TABLE = CHOICE / "combinations.csv"

REPORTS = Path("reports")
SERVED = Path("models/served")

EXPLAINED = Path("explained")  # neither DVC's nor git's: pictures of real galaxies

PRETRAINED = Path("pretrained")  # git's: published weights, one folder a model

WORK = Path(".work")  # in the project's root: what a killed stage resumes from; no stage's output
