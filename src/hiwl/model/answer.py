"""From pictures to a table of answers: the one way that Python users, the served model and every command share."""

import base64
import binascii
import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from hiwl.core.settings import settings
from hiwl.model.classifier import Classifier
from hiwl.model.pixels import MAGIC, BadImageError, Decoded, Pixels, central, decode

CHUNK = 64  # pictures decoded and answered at a time, which bounds memory
IMAGE = "image"


class Model:
    """A classifier with its decoder: pictures in, a table out."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in a folder of ``choice.json`` and checkpoints."""
        return cls(Classifier.load(folder, settings().accelerator))

    def __call__(self, pictures: Iterable[str | Path | bytes | Pixels]) -> pd.DataFrame:
        """Answer for pictures: paths, bytes of files, or (height, width, 3) uint8 arrays.

        A row for each, as :meth:`answer` gives them; of paths, with the path in a column `path`.
        """
        given = [Path(one) if isinstance(one, str) else one for one in pictures]
        table = pd.DataFrame({IMAGE: pd.Series(given, dtype=object)})
        if any(isinstance(one, Path) for one in given):
            table.insert(0, "path", [str(one) if isinstance(one, Path) else None for one in given])
        return self.answer(table)

    def answer(self, table: pd.DataFrame) -> pd.DataFrame:
        """Answer for the column `image` of `table`; its other columns come back in front of the answers.

        A cell holds the bytes of a picture's file (JPEG, PNG, TIFF, WebP or FITS), their base64 text, a ``Path`` or an
        array. The answers are: `answer` (the class), its `probability`, `p_<class>` of every class, `route` through the
        tree, `warning`, which says what was done to a picture that is too small, and `error`, which says what is wrong
        with one that could not be read; its other answers are empty.
        """
        images = table[IMAGE].tolist()
        parts = [self._answer(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        answers = pd.concat(parts or [self._answer([])], ignore_index=True)
        return pd.concat([table.drop(columns=IMAGE).reset_index(drop=True), answers], axis=1)

    def _answer(self, images: Sequence[Any]) -> pd.DataFrame:
        with ThreadPoolExecutor(settings().workers) as pool:  # Pillow decodes outside the interpreter's lock
            decoded = list(pool.map(self._decode, images))
        good = [row for row, picture in enumerate(decoded) if isinstance(picture, Decoded)]
        pictures = [picture.pixels for picture in decoded if isinstance(picture, Decoded)]
        side, classes = self.classifier.pack.side, self.classifier.tree.classes
        routed = self.classifier(np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8))
        answers = pd.DataFrame(routed.probabilities, columns=[f"p_{name}" for name in classes], index=good)
        answers.insert(0, "probability", routed.probabilities[np.arange(len(good)), routed.label])
        answers.insert(0, "answer", np.array(classes, dtype=object)[routed.label])
        answers["route"] = [" > ".join(path) for path in routed.routes]
        answers = answers.reindex(range(len(images)))
        answers["warning"] = [picture.warning or None if isinstance(picture, Decoded) else None for picture in decoded]
        answers["error"] = [picture if isinstance(picture, str) else None for picture in decoded]
        return answers.astype(object).where(answers.notna(), None)

    def _decode(self, image: Any) -> Decoded | str:
        """The picture, or what is wrong with it."""
        try:
            if isinstance(image, np.ndarray):
                return central(image, self.classifier.pack)
            return decode(to_bytes(image), self.classifier.pack)
        except (BadImageError, OSError) as error:
            return str(error)


def to_bytes(image: Any) -> bytes:
    """The bytes of a picture: those of the file at a ``Path``, bytes themselves, or decoded from base64 text.

    Raises:
        BadImageError: none of these.
        OSError: the file cannot be read.
    """
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, str):
        image = image.encode("ascii", "replace")
    if not isinstance(image, bytes | bytearray | memoryview):
        raise BadImageError(f"expected bytes or base64 text, found {type(image).__name__}")
    content = bytes(image)
    if not content.startswith(MAGIC):
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(content, validate=True)  # MLflow leaves it so in some forms of JSON
    return content
