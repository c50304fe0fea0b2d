"""`hiwl adopt <name>`: register weights of ``pretrained`` as they are: a real classifier, no data needed."""

import tempfile
from pathlib import Path

from hiwl.core.errors import HiwlError
from hiwl.core.files import sha256
from hiwl.core.layout import pretrained
from hiwl.core.record import Record
from hiwl.stages.register import RegisterParams, register, save
from hiwl.verbs.publish import SUMS, read_sums


def main(name: str) -> None:
    """Check ``pretrained/<name>`` against its sums and register it as ``hiwl-<name>`` with the alias `champion`."""
    folder = pretrained(name)
    name = folder.name
    check(folder)
    record = Record.model_validate_json((folder / "record.json").read_text())
    params = RegisterParams(name=f"hiwl-{name}", alias="champion", gate={})
    with tempfile.TemporaryDirectory() as scratch:
        saved = Path(scratch, "served")
        save(saved, folder)
        number = register(saved, record, params, folder)
    accuracy = record.metrics["test_accuracy"]
    print(f"adopt: {params.name} version {number} is {params.alias!r}; test accuracy {accuracy:.4f}")
    print(f"mlflow models serve -m models:/{params.name}@{params.alias} --env-manager local --port 5001")


def check(folder: Path) -> None:
    """Raise HiwlError, naming each file that is not what the sums say."""
    if not (folder / SUMS).exists():
        raise HiwlError(f"{folder / SUMS}: not found; `hiwl publish` writes it beside the weights")
    wrong = [name for name, digest in read_sums(folder).items() if sha256(folder / name) != digest]
    if wrong:
        names = ", ".join(wrong)
        raise HiwlError(f"{folder}: {names}: not as in {SUMS}; `git checkout {folder}` brings them back")
