"""`hiwl spark TABLE OUTPUT`: a survey on a cluster: Parquet of pictures in, Parquet of answers out.

MLflow's own Spark UDF of the model, which each worker loads once. The files of the table are answered a few at a time;
those that are done are not done again when it is started anew. Under `spark-submit` it runs where the cluster is.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from hiwl.core.errors import HiwlError
from hiwl.core.registry import content_of

BATCH = 128  # rows that the engine gets at a time
IMAGE, PATH, SOURCE, WEIGHTS = "image", "path", "source", "weights"  # columns; `source`: the file that a row came from
WAVES = 4  # files a core at a time: what a kill can lose


def main(table: str, output: str, weights: str) -> None:
    """Answer every row of the Parquet dataset `table` into the dataset `output`.

    Its column `image` holds bytes or, where there is none, `path` names files that every worker sees.

    Raises:
        HiwlError: Spark is not installed, or the table has neither column.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise HiwlError("Spark is not installed: pip install 'hiwl[spark]' brings it; it needs Java 17") from None
    import mlflow

    from hiwl.verbs.serve import saved_model

    os.environ.setdefault("HIWL_THREADS", "1")  # of each worker: Spark has one for each core
    os.environ.setdefault("HIWL_WORKERS", "1")
    spark = (
        SparkSession.builder.appName("hiwl")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
        .config("spark.executorEnv.HIWL_THREADS", "1")
        .config("spark.executorEnv.HIWL_WORKERS", "1")
        .config("spark.ui.showConsoleProgress", "true")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    saved = saved_model(weights)
    told = content_of(saved)
    answer = mlflow.pyfunc.spark_udf(spark, str(saved), env_manager="local")
    rows = spark.read.parquet(table)
    if not {IMAGE, PATH} & set(rows.columns):
        raise HiwlError(f"{table}: no column {IMAGE!r} or {PATH!r}; it has {', '.join(rows.columns)}")
    files = sorted(row[0] for row in rows.select("_metadata.file_path").distinct().collect())
    done = _done(spark, output, told)
    left = [file for file in files if _key(file) not in done]
    print(f"spark: {len(files)} files, {len(files) - len(left)} of them done", flush=True)
    reader = spark.read.option("basePath", table) if any("=" in file for file in files) else spark.read
    for wave in _waves(left, WAVES * spark.sparkContext.defaultParallelism):
        _answer(reader.parquet(*(unquote(file) for file in wave)), answer, told, output)
    print(f"spark: {output}: {spark.read.parquet(output).count():,} rows")


def _answer(rows: Any, answer: Any, told: str, output: str) -> None:
    from pyspark.sql import functions as f

    given = [name for name in rows.columns if name != IMAGE]
    if IMAGE not in rows.columns:
        rows = rows.withColumn(IMAGE, f.udf(_content, "binary")(PATH))
    answered = rows.select(
        f.md5(f.col("_metadata.file_path")).alias(SOURCE),
        *(f.col(name).alias(f"given_{name}") for name in given),
        answer(f.struct(IMAGE)).alias("a"),
    )
    fields = answered.select("a.*").dtypes
    names = [name for name, _ in fields]
    # MLflow's UDF makes text of nothing.
    answers = [
        f.nullif(f.col(f"a.{name}"), f.lit("None")).alias(name) if kind == "string" else f.col(f"a.{name}")
        for name, kind in fields
    ]
    free = [name if name not in (*names, SOURCE, WEIGHTS) else f"given_{name}" for name in given]
    flat = answered.select(
        SOURCE,
        f.lit(told).alias(WEIGHTS),
        *(f.col(f"given_{name}").alias(own) for name, own in zip(given, free, strict=True)),
        *answers,
    )
    # A wave is committed as a whole; what a killed one had begun is overwritten by the next.
    flat.write.option("partitionOverwriteMode", "dynamic").partitionBy(SOURCE).mode("overwrite").parquet(output)


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None  # answered as empty


def _done(spark: Any, output: str, told: str) -> set[str]:
    from pyspark.errors import AnalysisException

    try:
        found = spark.read.parquet(output).select(SOURCE, WEIGHTS).distinct().collect()
    except AnalysisException:  # there is none yet
        return set()
    if others := {row[WEIGHTS] for row in found} - {told}:
        raise HiwlError(f"{output}: holds answers of other weights ({', '.join(others)}); name another output")
    return {row[SOURCE] for row in found}


def _key(file: str) -> str:
    return hashlib.md5(file.encode(), usedforsecurity=False).hexdigest()


def _waves(files: list[str], size: int) -> Iterator[list[str]]:
    yield from (files[start : start + size] for start in range(0, len(files), size))
