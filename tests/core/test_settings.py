from pathlib import Path

import pytest

from hiwl.core.errors import HiwlError
from hiwl.core.settings import settings


def test_the_ecosystems_variables_count_and_the_projects_own_go_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().experiment_name == "hiwl"
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.setenv(name, f"their-{name}")
    monkeypatch.setenv("HIWL_EXPERIMENT_NAME", "mine")
    settings.cache_clear()
    here = settings()
    assert here.tracking_uri == "their-MLFLOW_TRACKING_URI"
    assert here.experiment_name == "mine"
    assert here.kaggle_username == "their-KAGGLE_USERNAME"
    assert here.kaggle_key is not None
    assert here.kaggle_api_token is not None
    assert here.kaggle_api_token.get_secret_value() == "their-KAGGLE_API_TOKEN"
    assert "their" not in repr(here.kaggle_key)


def test_a_process_confined_to_one_core_trains_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1}, raising=False)
    settings.cache_clear()
    assert (settings().threads, settings().workers) == (1, 1)
    monkeypatch.setenv("HIWL_THREADS", "3")
    settings.cache_clear()
    assert (settings().threads, settings().workers) == (3, 1)


def test_a_wrong_value_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIWL_DEVICES", "many")
    monkeypatch.setenv("HIWL_PRECISION", "8")
    settings.cache_clear()
    with pytest.raises(HiwlError) as told:
        settings()
    assert "HIWL_DEVICES: " in str(told.value)
    assert "(value 'many')" in str(told.value)
    assert "HIWL_PRECISION: " in str(told.value)


def test_an_empty_variable_counts_as_none_and_a_relative_database_is_the_roots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    settings.cache_clear()
    assert (settings().tracking_uri, settings().experiment_name) == (None, "hiwl")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for given, meant in (
        ("sqlite:///runs.db", f"sqlite:///{tmp_path}/runs.db"),
        ("sqlite:////srv/runs.db", "sqlite:////srv/runs.db"),
        ("http://server:5000", "http://server:5000"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        settings.cache_clear()
        assert settings().tracking_uri == meant
