"""The command `hiwl`: a stage of the pipeline, or one of the verbs beside it. Imports nothing slow."""

import argparse
import os
import sys
from importlib import import_module
from typing import Any, NamedTuple

from hiwl.core.errors import HiwlError
from hiwl.core.memory import keep_freed_memory


class Command(NamedTuple):
    """One command; the module ``<room>.<name>`` has a `main` that takes its arguments."""

    room: str
    help: str
    arguments: dict[str, dict[str, Any]] = {}  # noqa: RUF012  (a default, never changed)


COMMANDS = {
    "raw": Command("stages", "bring the survey in (simulated, your own files, or Kaggle's)"),
    "select": Command("stages", "the clean selection from the votes"),
    "split": Command("stages", "training, validation and test set"),
    "pack": Command("stages", "decode every picture once"),
    "train": Command(
        "stages",
        "one model for one node of the hierarchy",
        {"node": {"help": "a node of the hierarchy in params.yaml, such as root"}},
    ),
    "choose": Command("stages", "the best combination of the nodes' checkpoints on validation"),
    "evaluate": Command("stages", "the chosen combination on the test set"),
    "register": Command("stages", "the evaluated model into the registry, behind a gate"),
    "study": Command(
        "verbs",
        "run what is missing of a study in conf/study, or put it into DVC's queue",
        {
            "name": {"help": "a file of conf/study, without .yaml"},
            "--queue": {"action": "store_true", "help": "into DVC's queue instead of one after the other"},
        },
    ),
    "report": Command("verbs", "write docs/results.md, a page a study, results/*/runs.csv and report.html"),
    "figures": Command("verbs", "of the chosen models: t-SNE of features, Grad-CAM, every error as a picture"),
    "redraw": Command("verbs", "how certain the labels are: draw the volunteers again from a survey's votes"),
    "publish": Command(
        "verbs",
        "the evaluated choice as weights for everyone, with their card, into pretrained/",
        {"name": {"help": "a folder of pretrained/, such as small"}},
    ),
    "adopt": Command(
        "verbs",
        "register weights of pretrained/ as they are",
        {"name": {"help": "a folder of pretrained/, such as small"}},
    ),
    "restore": Command("verbs", "rebuild MLflow's runs and registry from what git and `dvc pull` bring"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; bad input ends with its message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="hiwl",
        description="Sort galaxies by shape from their pictures. `dvc repro` runs all stages in order.",
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        text = f"stage: {command.help}" if command.room == "stages" else command.help
        verb = verbs.add_parser(name, help=text, description=text)
        for argument, meaning in command.arguments.items():
            verb.add_argument(argument, **meaning)
    given = vars(parser.parse_args(arguments))
    name = given.pop("command")
    # Idle threads of a CPU training sleep instead of spinning: on a machine that does anything else beside it, spinning
    # threads take the cores from their own work. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()
    room = COMMANDS[name].room
    try:
        if room == "stages":
            import_module("hiwl.params").check_params()
        import_module(f"hiwl.{room}.{name}").main(**given)
    except HiwlError as error:
        sys.exit(f"hiwl {name}: {error}")
    except FileNotFoundError as error:
        sys.exit(
            f"hiwl {name}: {error.filename}: not found. `dvc repro` makes what a stage needs, `dvc pull` brings it."
        )


if __name__ == "__main__":
    main()
