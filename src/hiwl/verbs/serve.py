"""`hiwl serve`: a registered model, or weights, as a service on a network, with a page for people."""

import atexit
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import FrameType

from hiwl.core.errors import HiwlError
from hiwl.core.registry import weights_folder


def main(weights: str, host: str, port: int, timeout: int, megabytes: int, requests: int) -> None:
    """Serve until told to stop; requests that are under way are answered first.

    Raises:
        HiwlError: there is no such model, or the port is taken.
    """
    import uvicorn

    os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(timeout)  # MLflow's; the model reads it too
    from hiwl.service.app import Limits, create

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    check_port(host, port)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # uvicorn stops, then raises it again
    app = create(load(weights), Limits(megabytes << 20, requests))
    print(f"serve: http://{host}:{port}/ (Ctrl-C stops)", flush=True)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.is_stopping = True
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app, host, port, log_level="warning", timeout_graceful_shutdown=timeout, limit_concurrency=8 * requests
    )
    Server(config).run()


def check_port(host: str, port: int) -> None:
    """See to it that there is such a port, and that it is free.

    Raises:
        HiwlError: it is not.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except (OSError, OverflowError) as error:
            raise HiwlError(f"{host}:{port}: {getattr(error, 'strerror', error)}; name another --port") from None


def load(weights: str) -> "mlflow.pyfunc.PyFuncModel":  # type: ignore[name-defined]  # noqa: F821
    """The model as MLflow loads it: a registered one with its own code, weights with the code at hand."""
    import mlflow

    return mlflow.pyfunc.load_model(str(saved_model(weights)))


def saved_model(weights: str) -> Path:
    """The folder of an MLflow model, a copy that lasts as long as this process, whatever becomes of where it was."""
    from hiwl.stages.register import save

    folder = weights_folder(weights)
    scratch = tempfile.mkdtemp(prefix="hiwl-serve-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    copy, folder = Path(scratch, "model"), folder.resolve()
    is_saved = (folder.parent.name, folder.name) == ("artifacts", "choice")
    if is_saved and (folder.parents[1] / "MLmodel").exists():
        shutil.copytree(folder.parents[1], copy)
    else:
        save(copy, folder)
    return copy
