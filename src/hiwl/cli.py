"""The command `hiwl`: a stage of the pipeline, or one of the verbs beside it. Imports nothing slow."""

import argparse
import os
import sys
from importlib import import_module

from hiwl.errors import HiwlError

COMMANDS = {
    "raw": "stage: bring the survey in (simulated, your own files, or Kaggle's)",
    "select": "stage: the clean selection from the votes",
    "split": "stage: training, validation and test set",
    "pack": "stage: decode every picture once",
    "train": "stage: one model for one node of the hierarchy",
    "choose": "stage: the best combination of the nodes' checkpoints on validation",
    "evaluate": "stage: the chosen combination on the test set",
    "register": "stage: the evaluated model into the registry, behind a gate",
    "study": "run what is missing of a study in conf/study, or put it into DVC's queue",
    "explain": "what the chosen models look at: t-SNE of features, Grad-CAM, the sheet of errors",
    "redraw": "how sure the labels are: draw the volunteers again from a survey's votes",
    "publish": "the evaluated choice as weights for everyone, with their card, into pretrained/",
    "adopt": "register weights of pretrained/ as they are",
    "restore": "rebuild MLflow's runs and registry from what git and `dvc pull` bring",
    "report": "write docs/results.md, docs/results.json and report.html from the records in results/",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; bad input ends with its message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="hiwl",
        description="Sort galaxies by shape from their pictures. `dvc repro` runs all stages in order.",
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, text in COMMANDS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if name == "train":
            verb.add_argument("node", help="a node of the hierarchy in params.yaml, such as root")
        if name in ("publish", "adopt"):
            verb.add_argument("name", help="a folder of pretrained/, such as small")
        if name == "study":
            verb.add_argument("name", help="a file of conf/study, without .yaml")
            verb.add_argument("--queue", action="store_true", help="into DVC's queue instead of one after the other")
    given = vars(parser.parse_args(arguments))
    command = given.pop("command")
    # Idle threads of a CPU training sleep instead of spinning: on a machine that does anything else beside it, spinning
    # threads take the cores from their own work. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    run = import_module(f"hiwl.{command}").main
    try:
        run(**given)
    except HiwlError as error:
        sys.exit(f"hiwl {command}: {error}")
    except FileNotFoundError as error:
        missing = f"{error.filename}: not there. `dvc repro` makes what a stage needs, `dvc pull` brings it."
        sys.exit(f"hiwl {command}: {missing}")


if __name__ == "__main__":
    main()
