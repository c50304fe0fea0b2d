"""The command `hiwl`: a stage of the pipeline, or one of the verbs beside it. Imports nothing slow."""

import argparse
import copy
import errno
import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from hiwl import __version__
from hiwl.core.errors import HiwlError
from hiwl.core.files import alone
from hiwl.core.layout import WORK
from hiwl.core.memory import keep_freed_memory


class Command(NamedTuple):
    """One command; the module ``<room>.<name>`` has a `main` that takes its arguments."""

    room: str
    help: str
    arguments: dict[str, dict[str, Any]] = {}  # noqa: RUF012  (a default, never changed)
    needs_project: bool = True


PRETRAINED = {"name": {"help": "a folder of pretrained/, such as small"}}
WEIGHTS = {
    "default": "best",
    "help": "of pretrained/ (best), a folder, or MLflow's URI, such as models:/hiwl@champion",
}
SCALES: dict[str, dict[str, Any]] = {
    "--scale": {
        "type": float,
        "default": 1.0,
        "help": "how many times smaller galaxies are shown than in training; the centre is enlarged (1)",
    },
    "--arcsec": {"type": float, "help": "arcseconds a pixel; with --radius, each picture's scale follows"},
    "--radius": {"metavar": "COLUMN", "help": "the table's Petrosian radii (90 %%), in arcseconds"},
}
FEATURES = {"dest": "features", "required": True, "metavar": "FILE", "help": "what `hiwl embed` left"}
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
    "survey": Command(
        "verbs",
        "look at your own pictures and table, and write them down as a survey in conf/survey",
        {
            "name": {"help": "what to call it: lower-case letters, digits and '-'"},
            "images": {"help": "a folder or a zip archive of pictures"},
            "table": {"help": "a table (CSV or the like) of classes or votes"},
            "--votes": {"metavar": "FILE", "help": "beside a table of classes, the votes on some of its galaxies"},
            "--id": {
                "metavar": "COLUMN",
                "help": "the column that names the pictures (default: the one that names most)",
            },
            "--label": {"metavar": "COLUMN", "help": "the column of the class"},
        },
    ),
    "classify": Command(
        "verbs",
        "one's own pictures into a table of answers",
        {
            "paths": {
                "nargs": "+",
                "metavar": "PATH",
                "help": "pictures, folders, globs, zip archives, tables of paths (CSV, VOTable) or of bytes (Parquet)",
            },
            "--output": {"short": "-o", "required": True, "metavar": "FILE", "help": ".parquet, .csv, .fits or .vot"},
            "--weights": WEIGHTS,
            "--alpha": {
                "type": float,
                "default": 0.05,
                "help": "error level of the prediction sets: the share that may miss the right class (.05)",
            },
            **SCALES,
        },
        needs_project=False,
    ),
    "embed": Command(
        "verbs",
        "what a network sees in one's own pictures, as numbers: features for `similar`, `odd` and one's own work",
        {
            "paths": {"nargs": "+", "metavar": "PATH", "help": "as for classify"},
            "--output": {"short": "-o", "required": True, "metavar": "FILE", "help": ".parquet"},
            "--weights": WEIGHTS,
            "--node": {"default": "root", "help": "of the model's tree (root)"},
            "--components": {"type": int, "metavar": "K", "help": "the first K principal components instead of all"},
            **SCALES,
        },
        needs_project=False,
    ),
    "similar": Command(
        "verbs",
        "the galaxies most like one, by their features: a table and a page",
        {
            "galaxy": {"help": "one of the table (path, file name, ID), or a picture"},
            "--in": FEATURES,
            "--number": {"short": "-n", "type": int, "default": 20, "help": "how many (20)"},
            "--output": {
                "short": "-o",
                "default": "similar.html",
                "metavar": "FILE",
                "help": "the page (similar.html)",
            },
        },
        needs_project=False,
    ),
    "odd": Command(
        "verbs",
        "the oddest galaxies, by their features and by what you say of some: a ranking and a page",
        {
            "--in": FEATURES,
            "--answers": {
                "metavar": "FILE",
                "help": "a table of galaxies (path or ID) and `answer`, from 1 (dull) to 5 (FEATURES.answers.csv)",
            },
            "--output": {"short": "-o", "default": "odd.csv", "metavar": "FILE", "help": "the ranking (odd.csv)"},
            "--ask": {"action": "store_true", "help": "on a page, until Ctrl-C; answers are added to --answers"},
            "--port": {"short": "-p", "type": int, "default": 5002, "help": "of the page (5002)"},
        },
        needs_project=False,
    ),
    "map": Command(
        "verbs",
        "all galaxies of a table on one page, alike ones near each other, with their pictures",
        {
            "--in": FEATURES,
            "--with": {
                "dest": "more",
                "metavar": "FILE",
                "help": "a table of the same galaxies, whose columns can colour them too, such as odd.csv",
            },
            "--output": {"short": "-o", "default": "map.html", "metavar": "FILE", "help": "the page (map.html)"},
        },
        needs_project=False,
    ),
    "learn": Command(
        "verbs",
        "a new task from one's own labels: a model for classify, serve and the others",
        {
            "labels": {"help": "a table of pictures' paths, or with --images their IDs, and of labels"},
            "--output": {"short": "-o", "required": True, "metavar": "FOLDER", "help": "for the model"},
            "--images": {"metavar": "PATH", "help": "a folder or a zip archive of pictures that the table names"},
            "--column": {
                "action": "append",
                "default": [],
                "help": "of the labels (class, label, ...); several times: fractions, a class a column",
            },
            "--start": {
                "default": "best",
                "help": "a model (best), as --weights elsewhere, or NETWORK:WEIGHTS: scratch, hub or a file",
            },
            "--train": {
                "choices": ["probe", "head", "all"],
                "default": "probe",
                "help": "a new last layer on fixed features, what follows the last stage, or the network (probe)",
            },
        },
        needs_project=False,
    ),
    "check": Command(
        "verbs",
        "whether pictures are like those of training, so that their scores can be trusted: a page",
        {
            "paths": {"nargs": "+", "metavar": "PATH", "help": "as for classify"},
            "--weights": WEIGHTS,
            "--output": {"short": "-o", "default": "check.html", "metavar": "FILE", "help": "the page (check.html)"},
        },
        needs_project=False,
    ),
    "serve": Command(
        "verbs",
        "a model as a service on a network, with a page for people",
        {
            "--weights": WEIGHTS,
            "--host": {"default": "127.0.0.1", "help": "0.0.0.0 for all that can reach this machine (127.0.0.1)"},
            "--port": {"short": "-p", "type": int, "default": 5001, "help": "(5001)"},
            "--timeout": {"type": int, "default": 60, "metavar": "SECONDS", "help": "of a request (60)"},
            "--megabytes": {"type": int, "default": 64, "help": "of a request at most (64)"},
            "--requests": {"type": int, "default": 32, "help": "at once at most; others are told to try again (32)"},
        },
        needs_project=False,
    ),
    "spark": Command(
        "verbs",
        "a survey on a cluster: Parquet of pictures in, Parquet of answers out",
        {
            "table": {"help": "a Parquet dataset with a column `image` (bytes) or `path`, wherever Spark reads"},
            "output": {"help": "a Parquet dataset of answers; what is there already is not done again"},
            "--weights": WEIGHTS,
        },
        needs_project=False,
    ),
    "study": Command(
        "verbs",
        "run what is missing of a study in conf/study, or put it into DVC's queue",
        {
            "name": {"help": "a file of conf/study, without .yaml"},
            "--queue": {"action": "store_true", "help": "into DVC's queue instead of one after the other"},
        },
    ),
    "report": Command("verbs", "write docs/results.md, a page a study, results/*/runs.csv and report.html"),
    "worth": Command(
        "verbs",
        "what features are worth for similar and odd galaxies and new classes: renews docs/results/features.md",
        {
            "features": {
                "nargs": "*",
                "metavar": "NAME=FILE",
                "help": "what `hiwl embed` left of pictures named after their galaxies; FILE+FILE joins two",
            },
            "--votes": {"metavar": "FILE", "help": "the competition's table"},
            "--mixture": {"metavar": "FILE", "help": "such a table of galaxies drawn without regard to class"},
            "--splits": {"default": "data/splits/splits.csv", "metavar": "FILE", "help": "(data/splits/splits.csv)"},
            "--train": {
                "choices": ["head", "all"],
                "help": "go on training the networks that made the features, as `hiwl learn --train` does",
            },
        },
    ),
    "figures": Command("verbs", "of the chosen models: t-SNE of features, Grad-CAM, every error as a picture"),
    "redraw": Command("verbs", "how certain the labels are: draw the volunteers again from a survey's votes"),
    "publish": Command(
        "verbs", "the evaluated choice as weights for everyone, with their card, into pretrained/", PRETRAINED
    ),
    "trust": Command(
        "verbs",
        "fit and measure how far the answers of published weights can be trusted; renews docs/trust.md",
        PRETRAINED
        | {
            "--others": {
                "action": "append",
                "default": [],
                "metavar": "NAME=PATH",
                "help": "pictures of another kind, to be told apart from the test galaxies (as for classify)",
            }
        },
    ),
    "adopt": Command("verbs", "register weights of pretrained/ as they are", PRETRAINED, needs_project=False),
    "promote": Command(
        "verbs",
        "make the challenger in the registry, or another version, the champion",
        {
            "version": {
                "nargs": "?",
                "type": int,
                "help": "a version of the registered model; without it the challenger",
            }
        },
    ),
    "restore": Command("verbs", "rebuild MLflow's runs and registry from what git and `dvc pull` bring"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; what goes wrong outside the code ends in a line that says so, and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="hiwl",
        description="Sort galaxies by shape from their pictures. `dvc repro` runs all stages in order.",
    )
    parser.add_argument("--version", action="version", version=f"hiwl {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="command")
    for name, command in copy.deepcopy(COMMANDS).items():
        text = f"stage: {command.help}" if command.room == "stages" else command.help
        verb = verbs.add_parser(name, help=text, description=text)
        for argument, meaning in command.arguments.items():
            names = [meaning.pop("short"), argument] if "short" in meaning else [argument]
            verb.add_argument(*names, **meaning)
    given = vars(parser.parse_args(arguments))
    name = given.pop("command")
    if name is None:
        parser.print_help()
        return
    # Idle threads of a CPU training sleep instead of spinning: on a machine that does anything else beside it, spinning
    # threads take the cores from their own work. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()
    try:
        _run(name, given)
    except HiwlError as error:
        sys.exit(f"hiwl {name}: {error}")
    except KeyboardInterrupt:
        print(f"\nhiwl {name}: stopped; nothing is half-written", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if (said := _outside(error)) is None:
            raise
        sys.exit(f"hiwl {name}: {said}")


def _run(name: str, given: dict[str, Any]) -> None:
    room = COMMANDS[name].room
    section = import_module("hiwl.core.section")
    if not section.PARAMS.exists():
        # Other projects have a params.yaml too.
        above = [f for f in Path.cwd().parents if (f / section.PARAMS).exists() and (f / "conf/survey").is_dir()]
        if above or COMMANDS[name].needs_project:
            where = f": cd {above[0]}" if above else ", where params.yaml is"
            raise HiwlError(f"{Path.cwd()} has no {section.PARAMS}. Run hiwl in the project's root folder{where}")
    section.forget_read()
    run = import_module(f"hiwl.{room}.{name}").main
    if room != "stages":
        run(**given)
        return
    import_module("hiwl.params").check_params()
    if name == "train":  # has a lock of its own, which spans folders, and may be several processes
        run(**given)
    else:
        with alone(WORK / f"{name}.lock", f"runs `hiwl {name}` in this folder"):
            run()
    section.check_unchanged()


def _outside(error: Exception) -> str | None:
    """What to tell of an error whose cause lies outside the code; None of any other."""
    if isinstance(error, FileNotFoundError) and error.filename:
        if error.filename in ("dvc", "git"):  # a program that was to be run
            return f"{error.filename}: not found. Is the environment active? `. .venv/bin/activate`"
        if Path(error.filename).is_absolute():  # not of the project
            return f"{error.filename}: not found"
        return f"{error.filename}: not found. `dvc repro` makes what a stage needs, `dvc pull` brings it."
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{error.filename or Path.cwd()}: {error.strerror}. Change its owner or mode, or run elsewhere"
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Libraries tell of a full disk in words of their own.
    folders = {Path.cwd(), Path(os.environ.get("DVC_ROOT", ".")).resolve(), Path(tempfile.gettempdir())}
    if is_full and (written := getattr(error, "filename", None)) and Path(written).parent.is_dir():
        folders = {Path(written).parent}
    least, folder = min((shutil.disk_usage(folder).free, folder) for folder in folders)
    if is_full or least < 1 << 20:
        what = f"the disk is full ({least:,} bytes free)"
        return f"{folder}: {what}. Nothing is half-written: make room and run it again. ({error})"
    return None


if __name__ == "__main__":
    main()
