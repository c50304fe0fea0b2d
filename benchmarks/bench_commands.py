"""`hiwl --help` (goal: under half a second) and `dvc repro` with nothing to do (goal: under five), whole commands."""

import subprocess

from common import machine, seconds, spread


def main() -> None:
    print(machine())
    for command in (["hiwl", "--help"], ["dvc", "repro"]):
        times = seconds(lambda command=command: subprocess.run(command, capture_output=True, check=True))  # type: ignore[misc]
        print(f"{' '.join(command)}: {spread(times, 's')}")


main()
