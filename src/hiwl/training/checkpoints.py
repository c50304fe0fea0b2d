"""The state that a killed training resumes from, and its best weights.

Both lie in a folder of their own in ``.work`` until the training has ended: DVC empties a stage's outputs before it
runs the stage.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from hiwl.core.files import replacing
from hiwl.training.schedule import accuracies, best_epochs
from hiwl.training.trainer import Trainer

STATE = "state.pt"


class Kept(NamedTuple):
    """One of the best checkpoints."""

    file: str
    epoch: int
    """From 1."""
    validation_accuracy: float


class Checkpoints:
    """The folder of one training."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The state after the last epoch that was saved; None before the first."""
        path = self.folder / STATE
        state: dict[str, Any] | None = None
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def save(self, trainer: Trainer) -> None:
        """Keep the newest weights where they are among the best; then the state; then drop what fell behind."""
        best = {kept.file for kept in self.best(trainer.history)}
        newest = _name(len(trainer.history) - 1)
        if newest in best:
            with replacing(self.folder / newest) as beside:
                save_file(trainer.weights(), beside)
        with replacing(self.folder / STATE) as beside:
            torch.save(trainer.state_dict(), beside)
        for path in self.folder.glob("*.safetensors"):
            if path.name not in best:
                path.unlink()

    def best(self, history: list[dict[str, float]]) -> list[Kept]:
        """The best epochs of `history`, best first."""
        found = accuracies(history)
        return [Kept(_name(epoch), epoch + 1, found[epoch]) for epoch in best_epochs(found, self._keep)]

    def remove(self) -> None:
        """The training has ended and its results lie elsewhere."""
        shutil.rmtree(self.folder)


def _name(epoch: int) -> str:
    return f"epoch_{epoch + 1:03d}.safetensors"
