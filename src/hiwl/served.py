"""The served model: MLflow reads this file as code (no pickles) and calls `predict`.

Takes a table with a column `image`, JPEG or PNG bytes or their base64 text; gives a row for each: `class`,
`probability` (of that class), the probability of every class, `route`, and `error`. A bad image never raises: its row
says what is wrong with it, and the rows beside it are answered.
"""

import base64
import binascii
import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from hiwl.classifier import Classifier, device_of
from hiwl.images import BadImageError, Pixels, decode
from hiwl.memory import keep_freed_memory
from hiwl.settings import settings

CHUNK = 64  # pictures decoded and answered at a time, which bounds memory
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class Served(PythonModel):
    """The two-stage routing behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        """Load the choice and its checkpoints from the model's own folder."""
        keep_freed_memory()
        folder = Path(context.artifacts["choice"])
        self.classifier = Classifier(
            folder / "choice.json", lambda node, file: folder / node / file, device_of(settings().accelerator)
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Answer for every row of `model_input`."""
        # One form of request (`inputs`) arrives with all its pictures in one cell.
        values = [value for cell in model_input["image"] for value in (cell if isinstance(cell, list) else [cell])]
        parts = [self._answer(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
        return pd.concat(parts or [self._answer([])], ignore_index=True)

    def _answer(self, values: list[Any]) -> pd.DataFrame:
        classes = self.classifier.tree.classes
        decoded = list(self._decode(values))
        good = [row for row, (picture, _) in enumerate(decoded) if picture is not None]
        pictures = [picture for picture, _ in decoded if picture is not None]
        side = self.classifier.side
        routed = self.classifier(np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8))
        answers = pd.DataFrame(routed.probabilities, columns=[f"p_{name}" for name in classes], index=good)
        answers.insert(0, "probability", routed.probabilities[np.arange(len(good)), routed.label])
        answers.insert(0, "class", np.array(classes, dtype=object)[routed.label])
        answers["route"] = [" > ".join(path) for path in routed.routes]
        answers = answers.reindex(range(len(values)))
        answers["error"] = [error for _, error in decoded]
        return answers.astype(object).where(answers.notna(), None)

    def _decode(self, values: list[Any]) -> Iterable[tuple[Pixels | None, str | None]]:
        with ThreadPoolExecutor(settings().workers) as pool:  # Pillow decodes outside the interpreter's lock
            return list(pool.map(self._decode_one, values))

    def _decode_one(self, value: Any) -> tuple[Pixels | None, str | None]:
        try:
            return decode(to_bytes(value), self.classifier.crop, self.classifier.side), None
        except BadImageError as error:
            return None, str(error)


def to_bytes(value: Any) -> bytes:
    """The picture's bytes, from bytes or from base64 text (MLflow's JSON forms leave some undecoded).

    Raises:
        BadImageError: neither.
    """
    if isinstance(value, str):
        value = value.encode("ascii", "replace")
    if not isinstance(value, bytes | bytearray | memoryview):
        raise BadImageError(f"expected bytes or base64 text, found {type(value).__name__}")
    content = bytes(value)
    if not content.startswith(MAGIC):
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(content, validate=True)
    return content


mlflow.models.set_model(Served())
