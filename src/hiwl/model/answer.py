"""From pictures to a table of answers: the one way that Python users, the served model and every command share."""

import base64
import binascii
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from hiwl.core.errors import HiwlError
from hiwl.core.settings import settings
from hiwl.model.classifier import Answers, Classifier
from hiwl.model.components import Features
from hiwl.model.pixels import MAGIC, MAX_BYTES, BadImageError, Decoded, Pixels, area, central, decode
from hiwl.model.tree import Floats, Ints
from hiwl.model.trust import ALPHA, Trust

MOST_SCALE = 64
CHUNK = 64  # pictures answered at a time; the next are decoded meanwhile. It bounds memory
AREA = 2**24  # pixels of them: who sends large pictures waits for them, not everybody
AHEAD = 2
IMAGE = "image"
EMPTY = "empty"
PREFIX = re.compile(rb"\s*data:[^,]{0,200},")
OTHER_ALPHABET = bytes.maketrans(b"-_", b"+/")
Objects = npt.NDArray[np.object_]


class Picture(NamedTuple):
    """A row of a table, decoded."""

    row: int
    decoded: Decoded | None
    error: str | None


class Embedded(NamedTuple):
    """What a node sees in n pictures."""

    features: Features
    """(n, width): penultimate; not numbers where a picture cannot be read."""
    pictures: Objects
    """(n,): each as packed, (side, side, 3) uint8, or None."""
    errors: Objects
    """(n,): what is wrong with each, or None."""


class Model:
    """A classifier with its decoder: pictures in, a table out."""

    def __init__(
        self,
        classifier: Classifier,
        trust: Trust | None,
        answers: Callable[[Pixels], Answers] | None = None,
    ) -> None:
        self.classifier = classifier
        self.trust = trust
        self._answers = answers or classifier  # the served model puts requests together in between
        self._pool = ThreadPoolExecutor(settings().workers)  # Pillow decodes outside the interpreter's lock

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in a folder of ``choice.json`` and checkpoints."""
        classifier = Classifier.load(folder, settings().accelerator)
        return cls(classifier, Trust.load(folder, classifier.tree.classes))

    @property
    def columns(self) -> dict[str, type]:
        """The answers that each picture gets, and their types."""
        shares = {f"p_{name}": float for name in self.classifier.tree.classes}
        trusted = {"prediction_set": str, "distance": float, "unlike": bool} if self.trust else {}
        told = {"route": str, "views": int, "entropy": float, **trusted, "warning": str, "error": str}
        return {"answer": str, "probability": float, **shares, **told}

    def __call__(
        self, pictures: str | Path | bytes | Pixels | Iterable[str | Path | bytes | Pixels], alpha: float = ALPHA
    ) -> pd.DataFrame:
        """Answer for pictures, or for one: paths, bytes of files, or (height, width, 3) uint8 arrays.

        A row for each, as :meth:`answer` gives them; of paths, with the path in a column `path`.
        """
        if isinstance(pictures, str | Path | bytes) or (isinstance(pictures, np.ndarray) and pictures.ndim <= 3):
            pictures = [pictures]
        given = [Path(one) if isinstance(one, str) else one for one in pictures]
        table = pd.DataFrame({IMAGE: pd.Series(given, dtype=object)})
        if any(isinstance(one, Path) for one in given):
            table.insert(0, "path", [str(one) if isinstance(one, Path) else None for one in given])
        return self.answer(table, alpha)

    def answer(
        self,
        table: pd.DataFrame,
        alpha: float = ALPHA,
        scale: float | Floats = 1.0,
        until: float = math.inf,
        each: Callable[[int], object] = lambda number: None,
    ) -> pd.DataFrame:
        """Answer for the column `image` of `table`; its other columns come back in front of the answers, one that is
        called as an answer with `given_` before its name.

        A cell holds the bytes of a picture's file (JPEG, PNG, TIFF, WebP or FITS), their base64 text, a ``Path`` or an
        array. The answers are:

        - `answer` (the class), its `probability`, `p_<class>` of every class, `route` through the tree, `views`: by how
          many of the picture's eight symmetries it was seen;
        - `entropy` of the probabilities, in nats;
        - `prediction_set`: classes, among which the right one is with probability 1 - `alpha`, whichever it is;
        - `distance` from what the model knows, 1 being what one in a hundred galaxies like those of training exceeds;
          `unlike`: whether it is above 1;
        - `warning`, which says what was done to a picture that is too small; and `error`, which says what is wrong with
          one that could not be read: its other answers are empty.

        `each` is called with the numbers of rows that are done. Where the pictures show galaxies smaller than those of
        training, `scale` says how many times, of all or of each.

        Raises:
            HiwlError: `alpha` or `scale` is no such number.
            TimeoutError: it is past `until` (of the monotonic clock) and not all is answered.
        """
        if not 0 < alpha < 1:
            raise HiwlError(f"alpha is {alpha}: a share of errors between 0 and 1 is needed, such as 0.05")
        images, scales = _objects(table), _of_each(scale, len(table))
        # Whole numbers are 0 where there is no answer: Spark has no others.
        found = {name: np.full(len(table), 0 if kind is int else None, object) for name, kind in self.columns.items()}
        rows = self._rows(images, found["error"])
        each(len(table) - len(rows))
        for chunk in self._decoded(images, scales, rows):
            if time.monotonic() > until:
                raise TimeoutError
            self._fill(found, chunk, alpha)
            each(len(chunk))
        # One block of objects: columns of their own would take as long as the network does for one picture.
        answers = pd.DataFrame(np.stack(list(found.values()), axis=1), columns=list(found), dtype=object)
        given = table.drop(columns=IMAGE).reset_index(drop=True)
        given = given.rename(columns={name: f"given_{name}" for name in found if name in given})
        return pd.concat([given, answers], axis=1)

    def embed(
        self,
        table: pd.DataFrame,
        node: str,
        scale: float | Floats = 1.0,
        each: Callable[[int], object] = lambda number: None,
    ) -> Embedded:
        """What a node sees in the column `image` of `table`, cells, `scale` and `each` as in :meth:`answer`.

        Raises:
            HiwlError: `scale` is no such number.
        """
        asked, scales = self.classifier.nodes[node], _of_each(scale, len(table))
        images, errors, packed = _objects(table), np.full(len(table), None, object), np.full(len(table), None, object)
        features = np.full((len(table), asked.width), np.nan, np.float32)
        rows = self._rows(images, errors)
        each(len(table) - len(rows))
        for chunk in self._decoded(images, scales, rows):
            for row, _, error in chunk:
                errors[row] = error
            good = [(row, decoded.pixels) for row, decoded, _ in chunk if decoded is not None]
            if good:
                for row, pixels in good:
                    packed[row] = pixels
                pictures = torch.from_numpy(np.stack([pixels for _, pixels in good]))
                features[[row for row, _ in good]] = asked.ask(pictures, np.arange(len(good))).features.numpy()
            each(len(chunk))
        return Embedded(features, packed, errors)

    def decoded(self, image: Any) -> Pixels | None:
        """The packed pixels of one cell, None where it cannot be read."""
        picture = self._decode(0, image, 1.0)
        return picture.decoded.pixels if picture.decoded else None

    def _rows(self, images: Objects, errors: Objects) -> Ints:
        """Those that hold something; the others, which cost no work, get their error."""
        is_empty = np.fromiter(map(is_nothing, images), bool, len(images))
        errors[is_empty] = EMPTY
        return np.flatnonzero(~is_empty)

    def _decoded(self, images: Objects, scales: Floats, rows: Ints) -> Iterator[list[Picture]]:
        """The pictures at `rows` in chunks; some are decoded ahead of those that are answered."""
        ahead: deque[list[Future[Picture]]] = deque()
        for chunk in _chunks(images, rows):
            ahead.append([self._pool.submit(self._decode, row, images[row], scales[row]) for row in chunk])
            if len(ahead) > AHEAD:
                yield [picture.result() for picture in ahead.popleft()]
        yield from ([picture.result() for picture in chunk] for chunk in ahead)

    def _fill(self, found: dict[str, Objects], chunk: Sequence[Picture], alpha: float) -> None:
        for row, _, error in chunk:
            found["error"][row] = error
        good = [(row, decoded) for row, decoded, _ in chunk if decoded is not None]
        if not good:
            return
        rows, classes = [row for row, _ in good], self.classifier.tree.classes
        pictures = np.stack([decoded.pixels for _, decoded in good])
        routed, features, views = self._answers(pictures)
        warnings = [decoded.warning for _, decoded in good]
        shares = routed.probabilities
        found["answer"][rows] = np.array(classes, dtype=object)[routed.label]
        found["probability"][rows] = shares[np.arange(len(rows)), routed.label]
        for number, name in enumerate(classes):
            found[f"p_{name}"][rows] = shares[:, number]
        found["route"][rows] = [" > ".join(path) for path in routed.routes]
        found["views"][rows] = views
        found["entropy"][rows] = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
        if self.trust is not None:
            sets = self.trust.sets(shares, alpha)
            found["prediction_set"][rows] = [" ".join(np.array(classes)[inside]) for inside in sets]
            distances = self.trust.distances(features)
            found["distance"][rows] = distances
            found["unlike"][rows] = distances > 1
            sizes = self.trust.about_sizes(pictures)
            warnings = ["; ".join(filter(None, both)) for both in zip(warnings, sizes, strict=True)]
        found["warning"][rows] = [warning or None for warning in warnings]

    def _decode(self, row: int, image: Any, scale: float) -> Picture:
        """The picture, or what is wrong with it."""
        try:
            if isinstance(image, np.ndarray):
                decoded = central(image, self.classifier.pack, scale)
            else:
                decoded = decode(to_bytes(image), self.classifier.pack, scale)
        except (BadImageError, OSError) as error:
            return Picture(row, None, str(error))
        if not np.ptp(decoded.pixels, axis=(0, 1)).any():
            return Picture(row, None, "blank: every pixel that is looked at has one colour")
        return Picture(row, decoded, None)


def _of_each(scale: float | Floats, number: int) -> Floats:
    scales = np.broadcast_to(np.asarray(scale, np.float64), number)
    if not ((scales >= 1 / MOST_SCALE) & (scales <= MOST_SCALE)).all():
        raise HiwlError(
            f"a scale must lie between 1/{MOST_SCALE} and {MOST_SCALE}; found {scales.min()} to {scales.max()}"
        )
    return scales


def _objects(table: pd.DataFrame) -> Objects:
    images = np.empty(len(table), dtype=object)
    images[:] = table[IMAGE].tolist() if len(table) else []
    return images


def _chunks(images: Objects, rows: Ints) -> Iterator[list[int]]:
    chunk: list[int] = []
    pixels = 0
    for row in rows.tolist():
        size = area(to_bytes(images[row])) if isinstance(images[row], bytes | str) else 0
        if chunk and (len(chunk) == CHUNK or pixels + size > AREA):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(row)
        pixels += size
    if chunk:
        yield chunk


def is_nothing(image: Any) -> bool:
    """Whether a cell is empty: nothing, not a number, or text or bytes of no length."""
    if image is None or image is pd.NA or image is pd.NaT or (isinstance(image, float) and math.isnan(image)):
        return True
    return isinstance(image, str | bytes) and not image


def to_bytes(image: Any) -> bytes:
    """The bytes of a picture: those of the file at a ``Path``, bytes themselves, or decoded from base64 text.

    Base64 is taken as people send it: with a `data:` prefix, line breaks, the alphabet of URLs, without padding.

    Raises:
        BadImageError: none of these.
        OSError: the file cannot be read.
    """
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, BadImageError):  # whoever was to read it has said what is wrong
        raise image
    if isinstance(image, str):
        image = image.encode("ascii", "replace")
    if not isinstance(image, bytes | bytearray | memoryview):
        raise BadImageError(
            f"{type(image).__name__}: send the bytes of the picture's file, as base64 text in JSON or CSV"
        )
    content = bytes(image)
    if content.startswith(MAGIC) or len(content) > 2 * MAX_BYTES:
        return content
    text = b"".join(PREFIX.sub(b"", content, count=1).split()).translate(OTHER_ALPHABET).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return content  # of which `decode` says what it is not
