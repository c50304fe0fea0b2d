"""`hiwl --help` (goal: under half a second) and `dvc repro` with nothing to do (goal: under five), whole commands."""

import subprocess
import sys

from common import machine, seconds, spread


def main() -> None:
    print(machine())
    for command, bare in (
        (["hiwl", "--help"], [sys.executable, "-c", "pass"]),
        (["dvc", "repro"], ["dvc", "--version"]),
    ):
        times, least = (
            seconds(lambda c=c: subprocess.run(c, capture_output=True, check=True))  # type: ignore[misc]
            for c in (command, bare)
        )
        print(f"{' '.join(command)}: {spread(times, 's')}; {min(times) / min(least):.1f} times {' '.join(bare[-2:])!r}")


main()
