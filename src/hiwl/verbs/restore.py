"""`hiwl restore`: MLflow's runs and registry, rebuilt from what git and `dvc pull` bring."""

from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from hiwl.core import store, tracking
from hiwl.core.layout import CHOICE, NODES, REPORTS, SERVED
from hiwl.core.record import keep_run, read_evaluated, read_output, read_results, results
from hiwl.core.section import read_section
from hiwl.core.tracking import Origin
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
    origins = _origins()
    store.rebuild_unsynced()
    log = tracking.Log()
    for record in tqdm(records, "logging runs", unit="run"):
        log.add(record, origins.get(record.key))
    print(f"restore: {len(records)} runs are in MLflow")
    if not (REPORTS / "record.json").exists():
        return
    evaluated = read_evaluated()
    tracking.log_report(evaluated, REPORTS)
    if SERVED.exists():
        register(SERVED, evaluated, RegisterParams.parse(read_section("register"), "register"), CHOICE)


def _origins() -> dict[str, Origin]:
    """By run: the study that a run of real galaxies was made for, as ``results/*/runs.csv`` has it."""
    found: dict[str, Origin] = {}
    rows: dict[Path, Any] = {}
    for index in results().glob("*/runs.csv"):
        for listed in pd.read_csv(index, dtype={"fold": "Int64"}).dropna(subset="study").to_dict("records"):
            rows[index.parent / listed["file"]] = listed
    for kept in read_results():
        if (row := rows.get(kept.path)) is not None:
            fold = None if pd.isna(row["fold"]) else int(row["fold"])
            origin = Origin(row["study"], row["cell"], int(row["seed"]), fold)
            for record in (kept.choice, *kept.nodes.values()):
                found.setdefault(record.key, origin)
    return found
