"""The registered model: MLflow reads this file as code (no pickles) and calls `predict`; see `hiwl.model.answer`."""

import logging
import threading
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc.model import PythonModel

from hiwl.core.errors import HiwlError
from hiwl.core.memory import keep_freed_memory
from hiwl.model.answer import Model
from hiwl.model.requests import Server, seconds_of_server, to_table
from hiwl.model.together import Together

MARK = "hiwl: "  # by which a service tells the model's words, which repeat nothing of a request, from MLflow's
LOG = logging.getLogger("hiwl.model")


class Pyfunc(PythonModel):
    """The routed hierarchy behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        """Load the choice and its checkpoints from the model's own folder."""
        keep_freed_memory()
        model = Model.load(Path(context.artifacts["choice"]))
        self.model = Model(model.classifier, model.trust, Together(model.classifier))
        self._server: Server | None = None
        self._starting = threading.Lock()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer for every row of `model_input`, in whatever form MLflow hands it on (`to_table`).

        `params` may hold `alpha` and `scale` (see `Model.answer`).
        """
        try:
            table = to_table(model_input)
            if (seconds := seconds_of_server()) is None:
                return self.model.answer(table, **(params or {}))
            with self._starting:
                self._server = self._server or Server(self.model, seconds)
            until = self._server.until()
            self._server.check(table)
            return self.model.answer(table, **(params or {}), until=until)
        except HiwlError as error:
            raise MlflowException(f"{MARK}{error}", error_code=BAD_REQUEST) from None
        except TimeoutError:
            message = f"{MARK}stopped: the time limit has passed, and nobody waits for the answer any more"
            raise MlflowException(message, error_code=TEMPORARILY_UNAVAILABLE) from None
        except Exception:
            LOG.exception("a request failed")  # MLflow would blame the request
            raise MlflowException(f"{MARK}the model failed; its log says why", error_code=INTERNAL_ERROR) from None


mlflow.models.set_model(Pyfunc())
