"""`hiwl embed PATH... -o features.parquet`: what a network sees in pictures, as numbers.

The penultimate features of one node, or their principal components. A run that was killed goes on where it was; a
picture that cannot be read is a row that says so, without features.
"""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing
from hiwl.core.registry import weights_folder
from hiwl.core.sums import digest_of_sums
from hiwl.model.answer import IMAGE, Embedded, Model
from hiwl.model.components import Components
from hiwl.model.pixels import Pixels
from hiwl.verbs.parts import given_as_arrow, inputs_of, parts_of
from hiwl.verbs.scales import Scales
from hiwl.verbs.tables import writer_of

FEATURE, PICTURE, ERROR = "feature", "picture", "error"
MADE_BY = b"hiwl"
"""Key of the schema's metadata that holds :class:`How`."""
SHOWN = 112
"""Pixels of a picture's side in the table, at most."""


class How(NamedTuple):
    """The options."""

    weights: str
    node: str
    components: int | None
    model: str
    """What the weights contain (:func:`hiwl.core.sums.digest_of_sums`), as their name may come to mean others."""
    scale: float = 1.0
    arcsec: float | None = None
    radius: str | None = None

    @property
    def scales(self) -> Scales:
        """Of the pictures."""
        return Scales(self.scale, self.arcsec, self.radius)


def main(paths: list[str], output: str, **options: Any) -> None:
    """Write the features of what `paths` name into the table `output`.

    Raises:
        HiwlError: an input or option is not usable, or parts of another run lie beside the output.
    """
    out = Path(output)
    if out.suffix.lower() != ".parquet":
        raise HiwlError(f"{out}: features are kept in Parquet; name it .parquet")
    inputs, folder = inputs_of(paths, out), weights_folder(options["weights"])
    how = How(**options, model=digest_of_sums(folder))
    how.scales.check(inputs)
    see = Eye(Model.load(folder), folder, how)
    with parts_of(out, inputs, folder, how._asdict()) as parts:
        start = time.perf_counter()
        fresh = parts.work(see.table, "embedding")
        seconds = time.perf_counter() - start
        with replacing(out) as beside:
            writer_of(out)(parts.files, beside)
    errors = pq.read_table(out, columns=[ERROR])[ERROR].drop_null()
    print(f"embed: {out}: {sum(map(len, inputs)):,} images ({fresh / seconds:,.0f} images/s), {see.width} numbers each")
    if len(errors):
        print(f"  not read: {len(errors):,} (`{ERROR}` says why), such as: {errors[0]}")


class Eye:
    """A node of a model, and which of its numbers are wanted."""

    def __init__(self, model: Model, folder: Path, how: How) -> None:
        if how.node not in model.classifier.nodes:
            raise HiwlError(f"--node {how.node}: the model has {', '.join(model.classifier.nodes)}")
        self._model, self._how = model, how
        self._components = None if how.components is None else Components.load(folder / how.node)
        self.width = model.classifier.nodes[how.node].width
        if how.components is not None:
            if self._components is None:
                raise HiwlError(f"{how.weights}: no components were fitted for it; leave --components out")
            if not 0 < how.components <= len(self._components.axes):
                raise HiwlError(f"--components {how.components}: 1 to {len(self._components.axes)} were fitted")
            self.width = how.components

    def __call__(self, pictures: pd.DataFrame, each: Callable[[int], object] = lambda number: None) -> Embedded:
        """As :meth:`Model.embed`, with (n, width) numbers for features."""
        seen = self._model.embed(pictures, self._how.node, self._how.scales.of(pictures), each)
        if self._components is None:
            return seen
        return seen._replace(features=self._components(seen.features, self.width))

    def table(self, pictures: pd.DataFrame, each: Callable[[int], object]) -> pa.Table:
        """What is given, the features in half precision, each picture as it was seen, and errors."""
        seen = self(pictures, each)
        flat = pa.array(
            seen.features.astype(np.float16).ravel()
        )  # what is missing is no number: Parquet takes no nulls
        given = {
            str(name) if name not in (FEATURE, PICTURE, ERROR) else f"given_{name}": given_as_arrow(pictures[name])
            for name in pictures
            if name != IMAGE
        }
        own = {
            FEATURE: pa.FixedSizeListArray.from_arrays(flat, self.width),
            PICTURE: pa.array([None if pixels is None else thumbnail(pixels) for pixels in seen.pictures], pa.binary()),
            ERROR: pa.array(seen.errors.tolist(), pa.string()),
        }
        return pa.table(given | own).replace_schema_metadata({MADE_BY: json.dumps(self._how._asdict())})


def thumbnail(pixels: Pixels) -> bytes:
    """A JPEG for pages, which are then there also where the pictures are not."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.BOX)
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def link(jpeg: bytes | None) -> str:
    """A picture for a page that holds all it shows."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg or b"").decode()
