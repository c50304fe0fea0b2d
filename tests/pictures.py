"""Small pictures for tests: sound, broken and dishonest ones."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(side: int, bits: int, rows: bytes) -> bytes:
    """A PNG of `side` x `side` pixels in three bands; each of its rows is a zero and the row's pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""
    return png(60000, bits=8, rows=b"")


def fits(planes: np.ndarray | None) -> bytes:
    """A FITS file of (planes, height, width) or (height, width) values, or of none."""
    from astropy.io.fits import PrimaryHDU

    buffer = io.BytesIO()
    PrimaryHDU(planes).writeto(buffer)
    return buffer.getvalue()


def jpeg(seed: int, side: int = 60) -> bytes:
    """A blob of light, of a shape and colour of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    light = 255 * np.exp(-np.hypot(x / rng.uniform(0.05, 0.4), y / rng.uniform(0.05, 0.4)))[..., None]
    return encode((light * rng.uniform(0.2, 1, 3)).astype(np.uint8), "JPEG")


def folder_of(folder: Path, number: int) -> Path:
    """A new folder of `number` pictures (``00.jpg``, ...), a broken and a blank one, and a file that is none."""
    folder.mkdir()
    for seed in range(number):
        (folder / f"{seed:02}.jpg").write_bytes(jpeg(seed, side=256))
    (folder / "broken.jpg").write_bytes(jpeg(1)[:300])
    (folder / "bläck.png").write_bytes(encode(np.zeros((256, 256, 3), np.uint8)))
    (folder / "notes.txt").write_text("none")
    return folder
