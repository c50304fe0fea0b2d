"""`hiwl worth --train`: what networks are worth that go on learning from few labels, as `hiwl learn` teaches them."""

import json
from concurrent.futures import ThreadPoolExecutor
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


class Curves:
    """The record of one network, taught by one way; renewed after each draw, so that it can be gone on with."""

    def __init__(self, name: str, start: str, train: str, said: dict[str, Any]) -> None:
        self.path = RECORDS / f"{name}-{train}.json"
        self._start, self._train = learn.Start.of(start), train
        fresh = said | {"name": name, "train": train, "learning": {}}
        kept = json.loads(self.path.read_text()) if self.path.exists() else fresh
        self._record = kept if kept | {"learning": {}} == fresh else fresh

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

    def one(path: str) -> Pixels:
        try:
            return decode(Path(path).read_bytes(), PackParams(**start.pack)).pixels
        except (OSError, BadImageError) as error:
            raise HiwlError(
                f"{path}: {error}; networks are taught from the pictures that the features were made of"
            ) from None

    with ThreadPoolExecutor(settings().workers) as pool:  # Pillow decodes outside the interpreter's lock
        return torch.from_numpy(np.stack(list(tqdm(pool.map(one, paths), "decoding", len(paths), unit="image"))))
