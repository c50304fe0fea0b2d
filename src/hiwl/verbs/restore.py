"""`hiwl restore`: MLflow's runs and registry, rebuilt from what git and `dvc pull` bring."""

from hiwl.core import tracking
from hiwl.core.layout import CHOICE, NODES, REPORTS, SERVED
from hiwl.core.record import keep_run, read_evaluated, read_output, read_results
from hiwl.core.section import read_section
from hiwl.stages.register import RegisterParams, register


def main() -> None:
    """Log every record of the pipeline's outputs and of ``results``; register ``models/served`` if it is there."""
    keep_run(read_output)
    paths = [
        *sorted(NODES.glob("*/*/record.json")),
        CHOICE / "record.json",
        REPORTS / "record.json",
        *(kept.path for kept in read_results()),
    ]
    records = tracking.read_records([path for path in paths if path.exists()])
    for record in records:
        tracking.log_run(record)
    print(f"restore: {len(records)} runs are in MLflow")
    if not (REPORTS / "record.json").exists():
        return
    evaluated = read_evaluated()
    tracking.log_report(evaluated, REPORTS)
    if SERVED.exists():
        params = RegisterParams.parse(read_section("register"), "register")
        print(f"restore: {params.name} version {register(SERVED, evaluated, params, CHOICE)} is {params.alias!r}")
