"""Where and how to run: from the environment (``HIWL_...``) or a ``.env`` file, never from ``params.yaml``.

Nothing here changes what a result *is*: a user's files are named here, but what they contain enters the parameters
by its SHA-256.
"""

import os
from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting, its default and its meaning."""

    model_config = SettingsConfigDict(env_prefix="HIWL_", env_file=".env", extra="ignore", frozen=True)

    images: Path | None = Field(None, description="survey `files`: archive (zip) or folder of GalaxyID.jpg/.png")
    table: Path | None = Field(None, description="survey `files`: CSV of votes, or of GalaxyID,class")
    weights: Path | None = Field(None, description="safetensors file, or folder of <backbone>.safetensors")
    kaggle_username: str | None = Field(None, description="survey `kaggle`: the user's name there")
    kaggle_key: SecretStr | None = Field(None, description="survey `kaggle`: the user's API key")
    kaggle_folder: Path | None = Field(None, description="survey `kaggle`: the archives, downloaded by hand")
    kaggle_server: str = Field("https://www.kaggle.com/api/v1", description="where Kaggle's API answers")
    tracking_uri: str | None = Field(None, description="MLflow server; default: mlflow.db in the project's root")
    study: str | None = Field(None, description="folder of results/ for records of real runs; default: survey")
    accelerator: str = Field("auto", description="auto, cpu, cuda, mps")
    devices: int = Field(1, ge=1, description="how many devices (processes) train together")
    precision: str = Field("32-true", description="32-true, bf16-mixed, 16-mixed")
    workers: int = Field(os.cpu_count() or 1, ge=1, description="processes that draw or decode images")
    threads: int = Field(os.cpu_count() or 1, ge=1, description="threads of one training process")


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def project_root() -> Path:
    """The folder that keeps what outlives one pipeline run: mlflow.db, mlruns, results, states to resume from.

    A queued or temporary DVC experiment runs in a copy of the project; DVC tells it where the original is.
    """
    return Path(os.environ.get("DVC_ROOT", Path.cwd())).resolve()
