"""Where and how to run: from the environment (``HIWL_...``) or a ``.env`` file, never from ``params.yaml``.

The variables that MLflow's and Kaggle's own tools read count as well; the project's own go before them.

Nothing here changes what a result *is*: a user's files are named here, but what they contain enters the parameters
by its SHA-256. Precision, devices and compilation change its digits: records keep them, and the report pairs runs of
one precision alone.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hiwl.core.errors import HiwlError


def project_root() -> Path:
    """The folder that keeps what outlives one pipeline run: mlflow.db, mlruns, results, states to resume from.

    A queued or temporary DVC experiment runs in a copy of the project; DVC tells it where the original is.
    """
    return Path(os.environ.get("DVC_ROOT", Path.cwd())).resolve()


def _also(name: str) -> AliasChoices:
    """The project's own variable, else the ecosystem's `name`."""
    return AliasChoices(f"HIWL_{name.removeprefix('MLFLOW_')}", name)


def _cores() -> int:
    """Cores that this process may use: where it is confined to some (taskset, a batch system), more threads than
    these would wait for each other, spinning."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """Every setting, its default and its meaning."""

    model_config = SettingsConfigDict(env_prefix="HIWL_", env_ignore_empty=True, extra="ignore", frozen=True)

    images: Path | None = Field(None, description="a survey of files: archive (zip) or folder of pictures")
    table: Path | None = Field(None, description="a survey of files: its table of classes or votes")
    votes: Path | None = Field(None, description="a survey of files by label: a table of votes on some of its galaxies")
    weights: Path | None = Field(None, description="safetensors file, or folder of <backbone>.safetensors")
    teachers: Path | None = Field(None, description="folder of the tables that train.teachers names")
    kaggle_api_token: SecretStr | None = Field(
        None, validation_alias=_also("KAGGLE_API_TOKEN"), description="survey `kaggle`: the user's token there"
    )
    kaggle_username: str | None = Field(
        None, validation_alias=_also("KAGGLE_USERNAME"), description="survey `kaggle`: before tokens, the user's name"
    )
    kaggle_key: SecretStr | None = Field(
        None, validation_alias=_also("KAGGLE_KEY"), description="survey `kaggle`: before tokens, the user's API key"
    )
    kaggle_folder: Path | None = Field(None, description="survey `kaggle`: the archives, downloaded by hand")
    tracking_uri: str | None = Field(
        None,
        validation_alias=_also("MLFLOW_TRACKING_URI"),
        description="MLflow server; default: mlflow.db in the project's root",
    )
    experiment_name: str = Field(
        "hiwl",
        min_length=1,
        validation_alias=_also("MLFLOW_EXPERIMENT_NAME"),
        description="MLflow experiment of the runs",
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="what trains and answers")
    devices: int = Field(1, ge=1, description="how many devices (processes) of one machine train together")
    machines: int = Field(1, ge=1, description="how many machines train together, each under torchrun")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="of the arithmetic in training")
    compile: bool = Field(False, description="torch.compile the model for training, on one GPU with CUDA graphs")
    workers: int = Field(default_factory=_cores, ge=1, description="processes that draw or decode images")
    threads: int = Field(default_factory=_cores, ge=1, description="threads of a training, shared by its processes")

    @field_validator("tracking_uri")
    @classmethod
    def _sqlite_from_the_root(cls, uri: str | None) -> str | None:
        """A relative SQLite file is the project root's too."""
        path = (uri or "").removeprefix("sqlite:///")
        return uri if uri == path or uri is None else f"sqlite:///{project_root() / path}"

    @field_validator("images", "table", "votes", "weights", "teachers", "kaggle_folder")
    @classmethod
    def _from_the_root(cls, path: Path | None) -> Path | None:
        """Relative places are the project root's, also where an experiment runs in a copy."""
        return None if path is None else project_root() / path.expanduser()


@cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        HiwlError: naming each setting with a value that it does not take.
    """
    try:
        return Settings(_env_file=project_root() / ".env")
    except ValidationError as error:
        raise HiwlError("\n".join(map(_explain, error.errors()))) from None


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0]).upper()
    own = name if name.startswith("HIWL_") else f"HIWL_{name}"
    theirs = (own, own.replace("HIWL_", "MLFLOW_"), own.removeprefix("HIWL_"))
    name = next((variable for variable in theirs if variable in os.environ), own)
    return f"{name}: {problem['msg']} (value {problem['input']!r})"
