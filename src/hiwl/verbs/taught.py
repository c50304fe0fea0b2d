"""`hiwl worth --train`: what networks are worth that go on learning from few labels, as `hiwl learn` teaches them."""

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import write_json
from hiwl.core.settings import settings
from hiwl.measure.worth import Draw, Tag, draws, told_apart
from hiwl.model.classifier import predict
from hiwl.model.pixels import BadImageError, PackParams, Pixels, decode
from hiwl.model.preprocess import Preprocess
from hiwl.verbs import learn

RECORDS = Path("results/features/taught")
DATA = ("votes", "mixture", "splits")
"""The tables of galaxies that `hiwl worth` judges by."""


def read_record(path: Path) -> dict[str, Any]:
    """A record of `hiwl worth`; the oldest name their tables by their files, in the same order."""
    record: dict[str, Any] = json.loads(path.read_text())
    return record | {"data": dict(zip(DATA, record["data"].values(), strict=True))}


class Taught:
    """The record of one network, taught in one way; written after each draw, so that a stopped run can continue."""

    def __init__(self, name: str, start: str, train: str, said: dict[str, Any]) -> None:
        """From the model or network `start`; `said` of the features that it is compared with.

        Raises:
            HiwlError: there is no such start, or the record is of another.
        """
        self.path = RECORDS / f"{name}-{train}.json"
        self._start, self._train = learn.Start.of(start), train
        fresh = said | {"name": name, "train": train, "weights": self._start.pretrained, "learning": {}}
        self._record = read_record(self.path) if self.path.exists() else fresh
        if self._record | {"learning": {}} != fresh:
            raise HiwlError(f"{self.path}: of other weights, galaxies or tables; delete it to measure anew")

    def measure(self, paths: list[str], tags: dict[str, Tag]) -> None:
        """Teach a network for each draw of labels of each tag, and test it on the other galaxies at `paths`; fewest
        labels first.

        Raises:
            HiwlError: a picture cannot be read.
        """
        drawn = [(tag, draw) for tag, of_tag in tags.items() for draw in draws(of_tag)]
        drawn = [(tag, draw) for tag, draw in drawn if str(draw.seed) not in self._of(tag, draw)]
        if not drawn:
            return
        pictures = _decoded(paths, self._start)
        for tag, draw in tqdm(sorted(drawn, key=lambda one: one[1].number), self.path.stem, unit="network"):
            self._of(tag, draw)[str(draw.seed)] = self._taught(pictures, tags[tag], draw)
            write_json(self.path, self._record)

    def _of(self, tag: str, draw: Draw) -> dict[str, Any]:
        found: dict[str, Any] = self._record["learning"].setdefault(tag, {}).setdefault(str(draw.number), {})
        return found

    def _taught(self, pictures: torch.Tensor, tag: Tag, draw: Draw) -> dict[str, float]:
        network = self._start.network(2)
        has = tag.has[draw.taught].astype(int)
        task = learn.Task(["without", "with"], np.eye(2)[has], pictures[torch.from_numpy(draw.taught)])
        learn.teach(network, self._start, task, *learn.split(task), head=self._train == "head")
        device = next(network.parameters()).device
        seen = self._start.seen
        preprocess = Preprocess(seen["input"], tuple(seen["mean"]), tuple(seen["std"]))
        said = predict(network, pictures, torch.from_numpy(draw.asked), preprocess, device)
        return told_apart(said.cpu().numpy(), tag.has[draw.asked])


def _decoded(paths: list[str], start: learn.Start) -> torch.Tensor:
    """(n, side, side, 3) uint8, as a model that starts there sees them."""
    params = PackParams.parse(start.pack)

    def one(path: str) -> Pixels:
        try:
            return decode(_content(path), params).pixels
        except (OSError, KeyError, BadImageError) as error:
            raise HiwlError(
                f"{path}: {error}; networks learn from the pictures themselves: start it where `hiwl embed` ran, on "
                "features of a folder or a zip archive"
            ) from None

    with ThreadPoolExecutor(settings().workers) as pool:  # Pillow decodes outside the interpreter's lock
        return torch.from_numpy(np.stack(list(tqdm(pool.map(one, paths), "decoding", len(paths), unit="image"))))


def _content(path: str) -> bytes:
    """Of a file, which may lie in an archive."""
    file = Path(path)
    archive = next((folder for folder in file.parents if folder.suffix.lower() == ".zip" and folder.is_file()), None)
    return file.read_bytes() if archive is None else _opened(archive).read(str(file.relative_to(archive)))


@cache
def _opened(archive: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)
