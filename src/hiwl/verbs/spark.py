"""`hiwl spark TABLE OUTPUT`: a survey on a cluster: Parquet of pictures in, Parquet of answers out.

MLflow's own Spark UDF of the model, which each worker loads once. The files of the table are answered a few at a time;
those that are done are not done again when it is started anew. Under `spark-submit` it runs where the cluster is.
"""

import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from hiwl.core.errors import HiwlError

BATCH = 128  # rows that the engine gets at a time
WAVES = 4  # files a core at a time: what a kill can lose


def main(table: str, output: str, weights: str) -> None:
    """Answer every row of the Parquet dataset `table`, which has a column `image` of bytes, into the dataset `output`.

    Raises:
        HiwlError: Spark is not installed, or the table has no such column.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise HiwlError("Spark is not installed: pip install 'hiwl[spark]' brings it; it needs Java 17") from None
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
    answer = udf_of(spark, weights)
    files = sorted(spark.read.parquet(table).inputFiles())
    done = _done(spark, output)
    left = [file for file in files if _name(file) not in done]
    print(f"spark: {len(files)} files, {len(files) - len(left)} of them done", flush=True)
    for wave in _waves(left, WAVES * spark.sparkContext.defaultParallelism):
        _answer(spark.read.parquet(*wave), answer, output)
    print(f"spark: {output}: {spark.read.parquet(output).count():,} rows")


def udf_of(spark: Any, weights: str) -> Any:
    """MLflow's UDF of a registered model, or of weights, which are saved as a model first."""
    import mlflow

    from hiwl.verbs.serve import saved_model

    return mlflow.pyfunc.spark_udf(spark, str(saved_model(weights)), env_manager="local")


def _answer(rows: Any, answer: Any, output: str) -> None:
    from pyspark.sql import functions as f

    if "image" not in rows.columns:
        raise HiwlError(f"the table has no column 'image'; it has {', '.join(rows.columns)}")
    kept = [name for name in rows.columns if name != "image"]
    answered = rows.select(*kept, f.col("_metadata.file_name").alias("source"), answer(f.struct("image")).alias("a"))
    flat = answered.select(*kept, "source", "a.*")
    # A wave is committed as a whole; what a killed one had begun is overwritten by the next.
    flat.write.option("partitionOverwriteMode", "dynamic").partitionBy("source").mode("overwrite").parquet(output)


def _done(spark: Any, output: str) -> set[str]:
    from pyspark.errors import AnalysisException

    try:
        return {_name(row["source"]) for row in spark.read.parquet(output).select("source").distinct().collect()}
    except AnalysisException:  # there is none yet
        return set()


def _name(file: str) -> str:
    return PurePosixPath(file).name


def _waves(files: list[str], size: int) -> Iterator[list[str]]:
    yield from (files[start : start + size] for start in range(0, len(files), size))
