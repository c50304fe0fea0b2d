"""Timing and made-up pictures for the benchmarks."""

import contextlib
import io
import os
import platform
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image


def machine() -> str:
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def seconds(work: Callable[[], object], repeat: int = 5) -> list[float]:
    """Wall seconds of `repeat` calls, after one that does not count."""
    work()
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def spread(values: list[float], unit: str) -> str:
    """Median, least and most."""
    return f"{median(values):.4g} {unit} ({min(values):.4g} to {max(values):.4g}, n = {len(values)})"


def jpegs(count: int, side: int = 424) -> list[bytes]:
    """JPEGs of the competition's size: a bright blob on a noisy dark sky."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        light = 200 * np.exp(-np.hypot(x / rng.uniform(0.03, 0.1), y / rng.uniform(0.03, 0.1)))
        picture = light[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(6, 3, (side, side, 3))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        made.append(buffer.getvalue())
    return made


def galaxies(count: int) -> tuple[str, list[bytes]]:
    """What they are, and `count` pictures: of galaxies from the zip that HIWL_IMAGES names, if it names one."""
    if "HIWL_IMAGES" not in os.environ:
        return "made-up pictures, repeated", (jpegs(64) * (count // 64 + 1))[:count]
    with zipfile.ZipFile(os.environ["HIWL_IMAGES"]) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        chosen = np.random.default_rng(0).choice(len(names), count, replace=False)
        return "galaxies", [archive.read(names[number]) for number in chosen]


def in_folder(pictures: list[bytes], folder: Path) -> list[Path]:
    """The pictures as files of a new folder."""
    folder.mkdir()
    files = [folder / f"{number:04}.jpg" for number in range(len(pictures))]
    for file, content in zip(files, pictures, strict=True):
        file.write_bytes(content)
    return files


def peak_memory(group: int) -> float:
    """Peak resident megabytes so far, summed over the living processes of a group (pages of files left out)."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if folder.name.isdecimal() and os.getpgid(int(folder.name)) == group:
                lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
                shared = sum(float(lines[key].split()[0]) for key in ("RssFile", "RssShmem"))
                total += max(float(lines["VmHWM"].split()[0]) - shared, float(lines["RssAnon"].split()[0])) / 1024
    return total
