"""The registered model: MLflow reads this file as code (no pickles) and calls `predict`; see `hiwl.model.answer`."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from hiwl.core.memory import keep_freed_memory
from hiwl.model.answer import IMAGE, Model


class Pyfunc(PythonModel):
    """The routed hierarchy behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        """Load the choice and its checkpoints from the model's own folder."""
        keep_freed_memory()
        self.model = Model.load(Path(context.artifacts["choice"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Answer for every row of `model_input`."""
        if model_input[IMAGE].map(lambda cell: isinstance(cell, list)).any():
            # One form of request (`inputs`) arrives with all its pictures in one cell.
            model_input = model_input[[IMAGE]].explode(IMAGE, ignore_index=True)
        return self.model.answer(model_input)


mlflow.models.set_model(Pyfunc())
