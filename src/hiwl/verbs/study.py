"""`hiwl study <name>`: the runs of a study that no record holds yet, one after the other or into DVC's queue."""

import subprocess
from pathlib import Path

import yaml

from hiwl.core.errors import HiwlError
from hiwl.core.record import keep_run, read_results
from hiwl.core.tracking import Origin
from hiwl.params import definition
from hiwl.studies.plan import Planned, on_record, plan, read_study


def main(name: str, queue: bool) -> None:
    """Run what is missing, or put it into DVC's queue; keep the record of each in ``results``."""
    study = read_study(name)
    planned = plan(study)
    known = on_record(study, read_results())
    missing = [run for run in planned if run.definition not in known]
    print(f"study {name}: {study.question}\n{len(planned)} runs, {len(planned) - len(missing)} on record")
    experiments = _experiments()
    queued = 0
    for number, run in enumerate(missing, start=1):
        title = _title(name, run)
        if title in experiments and _definition(experiments[title]) == run.definition:  # it ran in DVC's queue
            _keep(experiments[title], title)
            continue
        print(f"study {name}: run {number} of {len(missing)}: {title}", flush=True)
        if title in experiments:
            subprocess.run(["dvc", "exp", "remove", title], check=True)
        # In a copy of the project, so that params.yaml and dvc.lock here stay as they are.
        how = ["--queue" if queue else "--temp", "--name", title]
        command = ["dvc", "exp", "run", *how, *(f"--set-param={choice}" for choice in run.choices), study.until]
        if subprocess.run(command, check=False).returncode:
            raise HiwlError(f"stopped at {title}: run the same command again to go on from there")
        if queue:
            queued += 1
        else:
            _keep(_experiments()[title], title)
    if queued:
        print(f"`dvc queue start` runs {queued}; then run `hiwl study {name}` again to collect their records")


def _title(study: str, run: Planned) -> str:
    """The name of the run as an experiment of DVC's."""
    return Origin(study, run.cell, run.seed, run.fold).title


def _experiments() -> dict[str, str]:
    """DVC's experiments: commit by name."""
    listed = ["git", "for-each-ref", "refs/exps", "--format=%(refname:lstrip=-1) %(objectname)"]
    lines = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split() for line in lines)


def _definition(commit: str) -> str | None:
    """What defines an experiment; None where its parameters are not today's."""
    shown = subprocess.run(["git", "show", f"{commit}:params.yaml"], capture_output=True, text=True, check=True).stdout
    try:
        return definition(yaml.safe_load(shown))
    except (HiwlError, KeyError):
        return None


def _keep(commit: str, title: str) -> None:
    """Keep what DVC has of an experiment's outputs, whether it ran now or came from DVC's run cache."""
    import dvc.api
    from dvc.exceptions import DvcException

    def read(path: Path) -> bytes | None:
        try:
            content: bytes = dvc.api.read(str(path), rev=commit, mode="rb")
        except (DvcException, FileNotFoundError):
            return None
        return content

    path = keep_run(read)
    if path is None:
        raise HiwlError(f"{title}: DVC holds no record of it; runs on simulated galaxies are not kept")
    print(f"study: {title} is on record: {path}")
