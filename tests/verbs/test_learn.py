import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import hiwl
from hiwl.core.errors import HiwlError
from hiwl.core.sums import check_sums
from hiwl.model import backbones
from hiwl.model.classifier import CHOICE_FILE
from hiwl.verbs import learn
from hiwl.verbs.labels import read_targets
from hiwl.verbs.learn import Start, freeze_trunk
from pictures import encode

SCRATCH = "test_resnet:scratch"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Red and blue blobs, and one picture that cannot be read."""
    rng, rows = np.random.default_rng(0), []
    for number in range(40):
        pixels = rng.integers(0, 40, (200, 200, 3), dtype=np.uint8)
        kind = number % 2
        pixels[60:140, 60:140, 2 * kind] += 150
        (tmp_path / f"{number}.png").write_bytes(encode(pixels))
        named: dict[str, object] = {"ID": str(number), "path": f"{number}.png"}
        rows.append(named | {"label": ("red", "blue")[kind], "is_red": 0.9 - 0.8 * kind})
    (tmp_path / "broken.png").write_bytes(b"no picture")
    table = pd.DataFrame([*rows, {"ID": "broken", "path": "broken.png", "label": "red", "is_red": 0.5}])
    table.assign(is_blue=1 - table["is_red"]).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path / "labels.csv"


def run(labels: Path, train: str = "probe", start: str = SCRATCH, **options: object) -> Path:
    out = labels.parent / "model"
    given = {"images": None, "column": []} | options
    learn.main(str(labels), str(out), start=start, train=train, **given)  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize(
    "train", ["probe", *(pytest.param(name, marks=pytest.mark.process) for name in ("head", "all"))]
)
def test_what_was_learned_is_a_model_like_any_other(
    train: str, labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "STEPS", 40)
    out = run(labels, train)
    said = capsys.readouterr().out
    assert "1 pictures cannot be read, first broken.png" in said
    assert "blue, red from 32 galaxies" in said
    assert "of which 0.5000 are of the commonest class; lowest recall" in said
    assert (", which chose the rate too, of which" in said) == (train != "probe")
    check_sums(out, CHOICE_FILE)
    answers = hiwl.load(str(out))([labels.parent / f"{number}.png" for number in range(10)])
    assert answers["error"].isna().all()
    if train != "head":  # a random trunk need not tell much
        assert (answers["answer"] == ["red", "blue"] * 5).mean() > 0.8
    numbers = json.loads((out / "learned.json").read_text())
    assert numbers["galaxies"] == {"training": 32, "validation": 8}
    assert list(numbers["recall"]) == ["blue", "red"]
    assert np.mean(list(numbers["recall"].values())) == pytest.approx(numbers["accuracy"])
    assert len(numbers["validation_loss_by_rate"]) == (0 if train == "probe" else 3)
    again = Start.of(str(out))
    assert (again.backbone, again.seen["input"]) == ("test_resnet", Start.of(learn.LIKE).seen["input"])
    choice = json.loads((out / CHOICE_FILE).read_text())
    choice["nodes"]["root"]["dimension"] = 8
    (out / CHOICE_FILE).write_text(json.dumps(choice))
    with pytest.raises(HiwlError, match="it learned distances, and its embedding would be lost"):
        Start.of(str(out))


def test_a_model_is_a_start_and_keeps_all_but_its_last_layer(labels: Path) -> None:
    out = run(labels)
    first = hiwl.load(str(out)).classifier.nodes["root"].model.state_dict()
    table = pd.read_csv(labels)
    table["label"] = np.where(np.arange(len(table)) % 3, "b", np.where(np.arange(len(table)) % 2, "a", "c"))
    table.to_csv(labels, index=False)
    out.rename(out.with_name("first"))
    second = hiwl.load(str(run(labels, start=str(out.with_name("first"))))).classifier.nodes["root"].model.state_dict()
    for name, value in first.items():
        assert (name.startswith("fc.")) or torch.equal(value, second[name])
    assert second["fc.weight"].shape[0] == 3


def test_fractions_are_columns_and_ids_name_pictures_of_a_folder(labels: Path) -> None:
    pd.read_csv(labels).drop(columns="path").to_csv(labels, index=False)
    out = run(labels, images=str(labels.parent), column=["is_blue", "is_red"])
    answers = hiwl.load(str(out))([labels.parent / "0.png", labels.parent / "1.png"])
    assert answers["p_is_red"].tolist() == pytest.approx([0.9, 0.1], abs=0.15)
    assert json.loads((out / "learned.json").read_text())["mean_absolute_error"] < 0.15


def test_archives_are_found_however_their_path_is_written_and_rows_without_label_are_counted(
    labels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(labels.parent)
    with zipfile.ZipFile("all.zip", "w") as archive:
        for number in range(40):
            archive.write(f"{number}.png")
    table = pd.read_csv(labels).drop(columns="path")[:40]
    table.loc[0, "label"] = ""
    table.to_csv(labels, index=False)
    run(labels, images=".//all.zip")
    said = capsys.readouterr().out
    assert "1 of 40 rows have no label" in said
    assert "from 31 galaxies" in said


def test_fractions_stay_fractions_and_a_class_that_is_nowhere_the_largest_is_learned(
    labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "STEPS", 40)
    monkeypatch.setattr(learn, "MANY", 4)
    table = pd.read_csv(labels)
    table.assign(is_red=0.6 * table["is_red"], is_blue=0.6 * table["is_blue"], is_odd=0.4).to_csv(labels, index=False)
    for train in ("probe", "all"):
        out = run(labels, train, column=["is_blue", "is_red", "is_odd"])
        answers = hiwl.load(str(out))([labels.parent / "0.png", labels.parent / "1.png"])
        assert answers["p_is_odd"].tolist() == pytest.approx([0.4, 0.4], abs=0.2)
        assert answers["p_is_red"].tolist() == pytest.approx([0.54, 0.06], abs=0.2)


def test_what_is_wrong_with_labels_is_told_and_nothing_is_written(labels: Path) -> None:
    table = pd.read_csv(labels)
    with pytest.raises(HiwlError, match="no column kind; name it with --column, of ID, path"):
        run(labels, column=["kind"])
    with pytest.raises(HiwlError, match=r"is_red is '2\.0'; fractions are numbers between 0 and 1"):
        read_targets(labels, table.assign(is_red=2.0), ["is_red", "is_blue"])
    with pytest.raises(HiwlError, match="holds 1 class"):
        read_targets(labels, table.assign(label="red"), [])
    with pytest.raises(HiwlError, match="'a ring' is no name for a class"):
        read_targets(labels, table.assign(label=["a ring", "b"] + ["b"] * 39), [])
    table.assign(label=["rare"] + ["common"] * 40).to_csv(labels, index=False)
    with pytest.raises(HiwlError, match="rare: 1 galaxies; label at least two"):
        run(labels)
    with pytest.raises(HiwlError, match=r"none\.safetensors not found"):
        run(labels, start="resnet50:none.safetensors")
    assert not (labels.parent / "model").exists()
    with pytest.raises(HiwlError, match="would be replaced; name a new folder"):
        learn.main(str(labels), str(labels.parent), None, [], SCRATCH, "probe")
    with pytest.raises(HiwlError, match="is a file; name a new folder"):
        learn.main(str(labels), str(labels), None, [], SCRATCH, "probe")
    assert labels.exists()
    with pytest.raises(HiwlError, match="is_red is '85 %'"):
        read_targets(labels, table.assign(is_red="85 %"), ["is_red", "is_blue"])
    with pytest.raises(HiwlError, match=r"holds 101 labels, such as '0\.0'; at most 100"):
        read_targets(labels, pd.DataFrame({"label": [f"{n / 7}" for n in range(101)]}), [])
    with pytest.raises(HiwlError, match=r"none\.csv: not found"):
        run(labels.with_name("none.csv"))
    assert read_targets(labels, pd.DataFrame({"label": ["0.0", "1.0", ""]}), [])[0] == ["0", "1"]
    assert read_targets(labels, pd.DataFrame({"label": ["ring", "None", ""]}), [])[0] == ["None", "ring"]
    with pytest.raises(HiwlError, match="is_odd is above 0 nowhere; leave that --column out"):
        read_targets(labels, table.assign(is_odd=0), ["is_red", "is_odd"])
    pd.concat([table, table[:1]]).to_csv(labels, index=False)
    with pytest.raises(HiwlError, match=r"0\.png is labelled twice"):
        run(labels)


def test_a_network_that_takes_no_such_pictures_is_told(labels: Path) -> None:
    side = Start.of(learn.LIKE).seen["input"]
    with pytest.raises(HiwlError, match=f"--start vit_tiny_patch16_224: it does not take pictures of {side} pixels"):
        run(labels, start="vit_tiny_patch16_224:scratch")


@pytest.mark.process
def test_rates_that_diverge_are_passed_over(labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "STEPS", 40)
    monkeypatch.setattr(learn, "RATES", (0.01, 1e30))
    losses = json.loads((run(labels, "all") / "learned.json").read_text())["validation_loss_by_rate"]
    assert losses["0.01"] is not None
    assert losses["1e+30"] is None


def test_the_head_is_what_follows_the_last_stage() -> None:
    network = backbones.create("test_efficientnet", 2, "scratch", None).model
    freeze_trunk(network)
    learned = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert learned == {"conv_head", "bn2", "classifier"}
