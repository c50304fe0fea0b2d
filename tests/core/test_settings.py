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


def test_a_wrong_value_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIWL_DEVICES", "many")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    settings.cache_clear()
    with pytest.raises(HiwlError) as told:
        settings()
    assert "HIWL_DEVICES: " in str(told.value)
    assert "(value 'many')" in str(told.value)
    assert "MLFLOW_EXPERIMENT_NAME: " in str(told.value)
