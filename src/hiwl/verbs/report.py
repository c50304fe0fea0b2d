"""`hiwl report`: what was measured, from the records in ``results`` alone; nothing is measured anew.

Writes ``docs/results.md`` (one page), ``docs/results/<study>.md`` with a chart each, ``results/<survey>/runs.csv`` (the
index of the records), and ``report.html`` (not git's): all pages in one file, with every picture.
"""

import json
from typing import Any

import pandas as pd
from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.layout import ID
from hiwl.core.record import keep_run, read_output, read_results, results
from hiwl.studies.compare import compare
from hiwl.studies.page import write_pages
from hiwl.studies.plan import definition_of, plan, read_study, study_names
from hiwl.studies.study_page import Report
from hiwl.studies.table import nodes_table, read_files, runs_table, write_indexes
from hiwl.survey.tables import read_table


def main() -> None:
    """Take up the run in this folder, where its galaxies are real, and write all pages."""
    keep_run(read_output)
    kept = read_results()
    if not kept:
        raise HiwlError(f"{results()}: no records of runs; `hiwl study` leaves them there")
    studies = {name: read_study(name) for name in study_names()}
    planned = {name: plan(study) for name, study in tqdm(studies.items(), "reading studies", unit="study")}
    runs = runs_table(studies, planned, kept)
    if runs.empty:
        raise HiwlError(f"none of the {len(kept)} records in {results()} is a run of a study in conf/study")
    files = read_files(kept)
    compared = {name: compare(study, runs[runs["study"] == name]) for name, study in tqdm(studies.items(), "comparing")}
    report = Report(studies, planned, runs, nodes_table(files), files, _noise(), compared)
    written = write_pages(report)
    write_indexes(runs, kept)
    known = {run.definition for of_study in planned.values() for run in of_study}
    for file in sorted(set(files) - set(runs["file"])):
        why = "not evaluated yet" if definition_of(files[file]) in known else "not a run of any study"
        print(f"report: {file} is left out: {why}")
    print(
        f"report: {runs['file'].nunique()} runs in {len(studies)} studies; {len(written)} files, the first {written[0]}"
    )


def _noise() -> dict[str, tuple[dict[str, Any], pd.DataFrame]]:
    """What `hiwl redraw` found, by survey.

    Raises:
        HiwlError: two surveys have redrawn one galaxy.
    """
    found = {
        path.parent.name: (json.loads(path.read_text()), read_table(path.with_name("redraw.csv.gz")))
        for path in sorted(results().glob("*/redraw.json"))
    }
    ids = pd.concat([table[ID] for _, table in found.values()]) if found else pd.Series(dtype=str)
    if len(twice := ids[ids.duplicated()]):
        raise HiwlError(f"{results()}/*/redraw.csv.gz: galaxy {twice.iloc[0]} is in two of them; delete one")
    return found
