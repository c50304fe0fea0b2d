import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from hiwl import backbone, register
from hiwl.classifier import Classifier
from hiwl.files import write_json
from hiwl.images import decode
from hiwl.layout import CHOICE_FILE, NODES
from project import TREES, environment, free_port, wait_for
from test_images import bomb

CROP, SIZE = 40, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the paper's tree with random but outspoken weights."""
    folder = tmp_path_factory.mktemp("model")
    here = Path.cwd()
    os.chdir(folder)
    try:
        torch.manual_seed(1)
        nodes = {}
        for name, children in TREES["paper"].items():
            model = backbone.create("test_resnet", len(children), "scratch", None).model
            with torch.no_grad():
                model.get_parameter("fc.weight").normal_(0, 8)
            (NODES / name).mkdir(parents=True)
            save_file(model.state_dict(), NODES / name / "best.safetensors")
            nodes[name] = {
                "node": name,
                "children": children,
                "backbone": "test_resnet",
                "input": SIZE,
                "mean": [0.046, 0.041, 0.030],
                "std": [0.090, 0.075, 0.065],
                "file": "best.safetensors",
            }
        shares = {"CRS": 5, "IBS": 5, "SPI": 5, "CSS": 1, "EO": 4}
        content = {"hierarchy": TREES["paper"], "crop": CROP, "side": SIZE, "shares": shares, "nodes": nodes}
        content |= {"views": 1, "routing": "hard", "temperatures": {"root": 1.0, "narrow": 1.0}}
        CHOICE_FILE.parent.mkdir()
        write_json(CHOICE_FILE, content)
        Path("params.yaml").write_text(yaml.safe_dump({"hierarchy": TREES["paper"]}))
        (folder / "bundle").mkdir()
        register.save(folder / "served", register.bundle(folder / "bundle"))
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    # MLflow puts the model's own copy of the package first, for the rest of the process: undo it for the other tests.
    path, modules = list(sys.path), {name: module for name, module in sys.modules.items() if name.startswith("hiwl")}
    loaded = mlflow.pyfunc.load_model(str(folder / "served"))
    sys.path[:] = path
    sys.modules.update(modules)
    return loaded


def jpeg(seed: int, side: int = 60) -> bytes:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    light = 255 * np.exp(-np.hypot(x / rng.uniform(0.05, 0.4), y / rng.uniform(0.05, 0.4)))[..., None]
    buffer = io.BytesIO()
    Image.fromarray((light * rng.uniform(0.2, 1, 3)).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


PICTURES = [jpeg(seed) for seed in range(60)]
BAD = [b"", b"hello", PICTURES[0][:200], jpeg(1, side=20), b"\xff\xd8\xff" + bytes(1000)]


def test_the_pyfunc_and_the_classifier_agree_whatever_the_batch(folder: Path, model: Any) -> None:
    classifier = Classifier(folder / CHOICE_FILE, lambda node, file: folder / NODES / node / file, torch.device("cpu"))
    routed = classifier(np.stack([decode(picture, CROP, SIZE) for picture in PICTURES]))
    assert {len(path) for path in routed.routes} == {2, 3}  # some stop after the first layer, some do not
    for batch in (1, 7, len(PICTURES)):
        parts = [
            model.predict(pd.DataFrame({"image": PICTURES[start : start + batch]}))
            for start in range(0, len(PICTURES), batch)
        ]
        answers = pd.concat(parts, ignore_index=True)
        assert answers["class"].tolist() == [classifier.tree.classes[label] for label in routed.label]
        assert answers["route"].tolist() == [" > ".join(path) for path in routed.routes]
        found = answers[[f"p_{name}" for name in classifier.tree.classes]].to_numpy(float)
        assert np.abs(found - routed.probabilities).max() < 1e-5
        assert answers["error"].isna().all()


def test_bad_images_become_rows_that_say_so_and_the_others_are_answered(model: Any) -> None:
    values = [PICTURES[0], *BAD, base64.b64encode(PICTURES[0]).decode(), "no base64!", None, 7, PICTURES[1]]
    answers = model.unwrap_python_model().predict(None, pd.DataFrame({"image": pd.Series(values, dtype=object)}))
    good = [0, 6, 10]
    assert answers["error"].isna().tolist() == [row in good for row in range(len(values))]
    assert answers["class"].notna().tolist() == [row in good for row in range(len(values))]
    assert answers.loc[0].drop("error").equals(answers.loc[6].drop("error"))


def test_no_image_is_no_error(model: Any) -> None:
    assert len(model.unwrap_python_model().predict(None, pd.DataFrame({"image": []}))) == 0


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        ["mlflow", "models", "serve", "-m", "served", "--env-manager", "local", "-p", str(port)],
        cwd=folder,
        env=environment(),
        start_new_session=True,
    )
    try:
        wait_for(process, f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "instances", "inputs"])
def test_every_json_form_answers_the_good_pictures_beside_bad_ones(server: str, model: Any, form: str) -> None:
    good = text(PICTURES[0])
    pictures = [good, "no base64!", *map(text, BAD), text(bomb()), "", good]
    body = {
        "dataframe_split": {"columns": ["image"], "data": [[picture] for picture in pictures]},
        "dataframe_records": [{"image": picture} for picture in pictures],
        "instances": [{"image": picture} for picture in pictures],
        "inputs": {"image": pictures},
    }[form]
    answer = requests.post(server, json={form: body}, timeout=60)
    assert answer.status_code == 200
    rows = answer.json()["predictions"]
    assert [row["error"] is None for row in rows] == [True, *[False] * (len(pictures) - 2), True]
    wanted = model.predict(pd.DataFrame({"image": [PICTURES[0]]})).iloc[0]
    for row in (rows[0], rows[-1]):
        assert row["class"] == wanted["class"]
        assert row["probability"] == pytest.approx(wanted["probability"], abs=1e-5)


def test_a_parquet_request_with_a_binary_column_is_answered(server: str) -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"image": PICTURES + BAD}).to_parquet(buffer)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    answer = requests.post(server, data=buffer.getvalue(), headers=kind, timeout=60)
    assert answer.status_code == 200
    rows = answer.json()["predictions"]
    assert [row["error"] is None for row in rows] == [True] * len(PICTURES) + [False] * len(BAD)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"instances": [{"image": text(bad)} for bad in BAD] + [{"image": "no base64!"}, {"image": ""}]}),
        json.dumps({"inputs": {"image": ["junk!", "äö", text(PICTURES[0][:300])]}}),
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [["no base64!"]]}}),
        json.dumps({"dataframe_split": {"columns": ["picture"], "data": [[text(PICTURES[0])]]}}),
        json.dumps({"instances": [{"image": 7}]}),
        json.dumps({"instances": [{"image": None}]}),
        json.dumps({"image": text(PICTURES[0])}),
        "{",
    ],
)
def test_no_answer_shows_a_stack_trace_or_a_path(server: str, folder: Path, body: str) -> None:
    answer = requests.post(server, data=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.status_code in (200, 400)
    for secret in ("Traceback", "stack_trace", "site-packages", 'File "', "served.py", str(folder)):
        assert secret not in answer.text
