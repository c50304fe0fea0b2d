"""`hiwl similar` at a million galaxies: the index of replicated features, a query, and how many neighbours it misses.

Some pictures are embedded by pretrained/small; copies of their components, with noise, fill the table.
"""

import contextlib
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common import galaxies, in_folder, machine, spread
from hiwl.verbs import embed
from hiwl.verbs.features import FeatureTable

GALAXIES, WIDTH, PICTURES, QUERIES, NEAREST = 1_000_000, 40, 512, 100, 20
NOISE = 0.2  # of a component's spread


def main() -> None:
    kind, pictures = galaxies(PICTURES)
    print(machine(), f"{GALAXIES:,} rows of {WIDTH} components, replicated from {PICTURES} {kind}")
    with tempfile.TemporaryDirectory() as scratch:
        in_folder(pictures, Path(scratch, "pictures"))
        with contextlib.chdir(scratch):  # it says where it writes
            embed.main(["pictures"], "few.parquet", weights="small", node="root", components=WIDTH)
        many = replicated(Path(scratch, "few.parquet"), Path(scratch, "many.parquet"))
        table = FeatureTable(many)
        start = time.perf_counter()
        index = table.index()
        print(f"index: {GALAXIES / (time.perf_counter() - start):,.0f} galaxies/s, once")
        values = table.features()
        asked = np.random.default_rng(1).choice(len(values), QUERIES, replace=False)
        taken, kept = [], []
        directions = values / np.linalg.norm(values, axis=1, keepdims=True)
        for row in asked:
            start = time.perf_counter()
            found = index.search(values[row], NEAREST)
            taken.append(1000 * (time.perf_counter() - start))
            exact = np.argpartition(-(directions @ directions[row]), NEAREST)[:NEAREST]
            kept.append(len(np.intersect1d(np.asarray(found.keys, np.int64), exact)) / NEAREST)
        print(f"a query: {spread(taken, 'ms')}; of the {NEAREST} nearest it finds {np.mean(kept):.1%}")


def replicated(few: Path, many: Path) -> Path:
    """A table as `embed` leaves it, of a million rows."""
    features, rng = FeatureTable(few).features(), np.random.default_rng(0)
    schema = pq.read_schema(few)
    with pq.ParquetWriter(many, schema) as file:
        for start in range(0, GALAXIES, 10_000):
            chosen = features[rng.integers(len(features), size=10_000)]
            values = chosen + NOISE * features.std(axis=0) * rng.normal(size=chosen.shape)
            flat = pa.array(values.astype(np.float16).ravel())
            columns = {
                "path": pa.array([f"{start + number}.jpg" for number in range(len(values))], schema.field("path").type),
                "feature": pa.FixedSizeListArray.from_arrays(flat, WIDTH),
                "picture": pa.array([None] * len(values), pa.binary()),
                "error": pa.array([None] * len(values), pa.string()),
            }
            file.write_table(pa.table(columns).replace_schema_metadata(schema.metadata).cast(schema))
    return many


main()
