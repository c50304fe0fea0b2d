"""One model, every way in: the same galaxies, the same answers."""

import base64
import io
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

import hiwl
from hiwl.cli import main
from hiwl.stages import register
from pictures import encode, folder_of, noise
from project import Project, environment, free_port, wait_for

NAMES = [*(f"{number:02}.jpg" for number in range(20)), "broken.jpg", "bläck.png", "noise.png"]


@pytest.fixture
def pictures(evaluated: Project, tmp_path: Path) -> Path:
    folder = folder_of(tmp_path / "pictures", 20)
    (folder / "noise.png").write_bytes(encode(noise(256, 256)))
    return folder


@pytest.fixture
def server(evaluated: Project) -> Iterator[str]:
    register.save(Path("saved"), Path("models/choice"))
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "saved", "--env-manager", "local", "-p", str(port)]
    process = subprocess.Popen(command, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        wait_for(process, f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def assert_same(answers: pd.DataFrame, wanted: pd.DataFrame) -> None:
    for name in ("answer", "route", "prediction_set", "error"):
        assert answers[name].fillna("").tolist() == wanted[name].fillna("").tolist(), name
    for name in (*wanted.filter(like="p_"), "distance", "entropy"):
        found, asked = (table[name].to_numpy(float, na_value=np.nan) for table in (answers, wanted))
        np.testing.assert_allclose(found, asked, atol=1e-5, rtol=1e-4, err_msg=name)


@pytest.mark.process
def test_python_classify_and_every_form_of_a_request_agree(pictures: Path, server: str, tmp_path: Path) -> None:
    wanted = hiwl.load("models/choice")([pictures / name for name in NAMES])
    (pictures / "table.csv").write_text("file,ra\n" + "".join(f"{name},{row}.5\n" for row, name in enumerate(NAMES)))
    main(["classify", str(pictures / "table.csv"), "--weights", "models/choice", "-o", str(tmp_path / "a.parquet")])
    assert_same(pd.read_parquet(tmp_path / "a.parquet"), wanted)

    contents = [(pictures / name).read_bytes() for name in NAMES]
    texts = [base64.b64encode(content).decode() for content in contents]
    table = pd.DataFrame({"id": NAMES, "image": texts})
    parquet = io.BytesIO()
    pd.DataFrame({"id": NAMES, "image": contents}).to_parquet(parquet)
    forms: dict[str, dict[str, Any]] = {
        "split": {"json": {"dataframe_split": table.to_dict("split", index=False)}},
        "records": {"json": {"dataframe_records": table.to_dict("records")}},
        "instances": {"json": {"instances": table.to_dict("records")}},
        "inputs": {"json": {"inputs": table.to_dict("list")}},
        "csv": {"data": table.to_csv(index=False), "headers": {"Content-Type": "text/csv"}},
        "parquet": {"data": parquet.getvalue(), "headers": {"Content-Type": "application/vnd.apache.parquet"}},
    }
    for name, form in forms.items():
        response = requests.post(server, timeout=60, **form)
        assert response.status_code == 200, (name, response.text[:300])
        answers = pd.DataFrame(response.json()["predictions"])
        assert answers["id"].tolist() == NAMES, name
        assert_same(answers, wanted)
    alpha = requests.post(server, json={"inputs": {"image": texts}, "params": {"alpha": 0.5}}, timeout=60).json()
    narrow = hiwl.load("models/choice")(contents, alpha=0.5)["prediction_set"].fillna("").tolist()
    assert [row["prediction_set"] or "" for row in alpha["predictions"]] == narrow


@pytest.mark.process
def test_the_server_itself_holds_requests_to_limits(pictures: Path, server: str) -> None:
    nulls = io.BytesIO()
    pd.DataFrame({"image": pd.Series([None] * 3_000_000, dtype=object)}).to_parquet(nulls)
    flat = io.BytesIO()
    pd.DataFrame({"image": [encode(np.full((4096, 4096, 3), 9, np.uint8))] * 100}).to_parquet(flat)
    for body, said in ((nulls, "3000000 rows; a request may hold 100000"), (flat, "pixels in all; a request may hold")):
        headers = {"Content-Type": "application/vnd.apache.parquet"}
        response = requests.post(server, data=body.getvalue(), headers=headers, timeout=30)
        assert response.status_code == 400
        assert said in response.json()["message"]
    text = base64.b64encode((pictures / "00.jpg").read_bytes()).decode()
    rows = requests.post(server, json={"instances": [{"image": text}, {"image": None}]}, timeout=60).json()[
        "predictions"
    ]
    assert [row["error"] for row in rows] == [None, "empty"]


@pytest.mark.elsewhere
def test_spark_agrees_and_goes_on_where_it_was(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master local[2] pyspark-shell")
    wanted = hiwl.load("models/choice")([(pictures / name).read_bytes() for name in NAMES]).assign(id=NAMES)
    (tmp_path / "table").mkdir()
    for number in range(4):
        names = NAMES[number::4]
        part = pd.DataFrame({"id": names, "image": [(pictures / name).read_bytes() for name in names]})
        part.to_parquet(tmp_path / f"table/{number}.parquet")
    command = ["spark", str(tmp_path / "table"), str(tmp_path / "answers"), "--weights", "models/choice"]
    main(command)
    answers = pd.read_parquet(tmp_path / "answers").set_index("id").loc[NAMES].reset_index()
    assert_same(answers, wanted)
    lost, *_ = sorted((tmp_path / "answers").glob("source=*"))
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "answers").glob("source=*/*.parquet")}
    main(command)
    assert sorted(pd.read_parquet(tmp_path / "answers")["id"]) == sorted(NAMES)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    table = pd.DataFrame({"path": [str(pictures / name) for name in NAMES] + ["none.jpg"], "id": [*NAMES, "lost"]})
    table.to_parquet(tmp_path / "paths.parquet")
    main(["spark", str(tmp_path / "paths.parquet"), str(tmp_path / "of_paths"), "--weights", "models/choice"])
    of_paths = pd.read_parquet(tmp_path / "of_paths").set_index("id")
    assert of_paths.loc["lost", "error"] == "empty"
    assert_same(of_paths.loc[NAMES].reset_index().drop(columns="path"), wanted)
