"""`hiwl adopt <name>`: register weights of ``pretrained`` as they are: a real classifier, no data needed."""

import tempfile
from pathlib import Path

from hiwl.core.layout import pretrained
from hiwl.core.record import Record
from hiwl.core.sums import check_sums
from hiwl.model.classifier import CHOICE_FILE
from hiwl.stages.register import RegisterParams, register, save


def main(name: str) -> None:
    """Check ``pretrained/<name>`` against its sums and make it the champion of the registered model ``hiwl-<name>``."""
    folder = pretrained(name)
    check_sums(folder, CHOICE_FILE)
    record = Record.model_validate_json((folder / "record.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        saved = Path(scratch, "served")
        save(saved, folder)
        register(saved, record, RegisterParams(name=f"hiwl-{folder.name}", gate={}), folder, promoted=True)
