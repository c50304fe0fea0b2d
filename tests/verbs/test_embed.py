import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import hiwl
from hiwl.core.errors import HiwlError
from hiwl.core.sums import digest_of_sums
from hiwl.model.components import Components
from hiwl.verbs import embed, similar
from hiwl.verbs.features import FeatureTable
from pictures import jpeg


def run(tmp_path: Path, name: str, node: str = "root", components: int | None = None) -> Path:
    embed.main(
        [str(tmp_path / "pictures")], str(tmp_path / name), weights="models/choice", node=node, components=components
    )
    return tmp_path / name


def test_each_picture_gets_its_nodes_features_and_what_cannot_be_read_says_so(features: Path, tmp_path: Path) -> None:
    table = FeatureTable(features)
    assert len(table) == 42
    assert table.how == embed.How("models/choice", "root", None, digest_of_sums(Path("models/choice")))
    given = table.given
    files = given["path"].str.rsplit("/").str[-1].tolist()
    assert given["error"].notna().tolist() == [file in ("broken.jpg", "bläck.png") for file in files]
    model = hiwl.load("models/choice")
    row = files.index("07.jpg")
    pixels = model.decoded(jpeg(7, side=256))
    assert pixels is not None
    wanted = model.classifier(pixels[None]).features[0]
    assert table.feature(row) == pytest.approx(wanted, rel=2e-3, abs=1e-3)
    assert table.features()[row] == pytest.approx(table.feature(row), abs=0)
    assert np.isnan(table.features()[files.index("broken.jpg")]).all()
    (picture,) = table.pictures(np.array([row]))
    assert picture is not None
    assert picture.startswith(b"\xff\xd8")


def test_what_could_not_be_read_is_counted(features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "again.parquet")
    told = capsys.readouterr().out.splitlines()
    assert (
        told[-1]
        == f"  not read: 2 (`error` says why), such as: {FeatureTable(features).given['error'].dropna().iloc[0]}"
    )


def test_scales_are_those_of_classify_and_are_kept_with_the_features(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"weights": "models/choice", "node": "root", "components": None}
    embed.main([str(tmp_path / "pictures")], str(tmp_path / "twice.parquet"), **options, scale=2.0)
    twice, once = FeatureTable(tmp_path / "twice.parquet"), FeatureTable(features)
    assert twice.how.scale == 2
    assert not np.allclose(twice.feature(7), once.feature(7))
    (tmp_path / "other.jpg").write_bytes(jpeg(7, side=256))
    similar.main(str(tmp_path / "other.jpg"), str(twice.path), 1, str(tmp_path / "page.html"))  # seen as they were
    assert "07.jpg" in capsys.readouterr().out
    with pytest.raises(HiwlError, match="a scale must lie between"):
        embed.main([str(tmp_path / "pictures")], str(tmp_path / "no.parquet"), **options, scale=900.0)
    with pytest.raises(HiwlError, match="--arcsec and --radius belong together"):
        embed.main([str(tmp_path / "pictures")], str(tmp_path / "no.parquet"), **options, arcsec=0.4)


def test_components_are_those_fitted_on_training_and_another_node_sees_otherwise(
    features: Path, tmp_path: Path
) -> None:
    few = FeatureTable(run(tmp_path, "few.parquet", components=3))
    fitted = Components.load(Path("models/choice/root"))
    assert fitted is not None
    good = ~np.isnan(few.features()[:, 0])
    wanted = fitted(FeatureTable(features).features(), 3)
    assert few.features()[good] == pytest.approx(wanted[good], abs=0.02)
    narrow = FeatureTable(run(tmp_path, "narrow.parquet", node="narrow"))
    assert not np.allclose(narrow.features()[good], FeatureTable(features).features()[good])
    with pytest.raises(HiwlError, match="--components 500: 1 to"):
        run(tmp_path, "many.parquet", components=500)
    with pytest.raises(HiwlError, match="--components 0: 1 to"):
        run(tmp_path, "none.parquet", components=0)
    with pytest.raises(HiwlError, match="--node wide: the model has root, narrow"):
        run(tmp_path, "wide.parquet", node="wide")


def test_the_galaxies_most_like_one_are_those_of_the_least_cosine_distance(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = FeatureTable(features)
    similar.main("07", str(features), 5, str(tmp_path / "page.html"))
    printed = capsys.readouterr().out.splitlines()
    values = table.features()
    row = table.row("07")
    assert row is not None
    directions = values / np.linalg.norm(values, axis=1, keepdims=True)
    distances = 1 - directions @ directions[row]
    distances[row] = np.nan
    nearest = table.given["path"].iloc[np.argsort(distances)[:5]].tolist()
    assert [line.split()[-1] for line in printed[1:6]] == nearest
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg;base64,") == 6
    (tmp_path / "other.jpg").write_bytes(jpeg(7, side=256))
    similar.main(str(tmp_path / "other.jpg"), str(features), 1, str(tmp_path / "page.html"))
    assert "07.jpg" in capsys.readouterr().out
    with pytest.raises(HiwlError, match="neither a galaxy of"):
        similar.main("none.jpg", str(features), 1, str(tmp_path / "page.html"))
    with pytest.raises(HiwlError, match="--number 0: at least 1"):
        similar.main("07", str(features), 0, str(tmp_path / "page.html"))
    with pytest.raises(HiwlError, match="not a table of features"):
        FeatureTable(Path("models/choice/choice.json"))


def test_an_index_is_made_once_for_a_table_and_anew_when_that_changes(features: Path, tmp_path: Path) -> None:
    FeatureTable(features).index()
    (first,) = tmp_path.glob(".features.*.usearch")
    made = first.stat().st_mtime_ns
    FeatureTable(features).index()
    assert first.stat().st_mtime_ns == made
    pq.write_table(pq.read_table(features).slice(12), features)
    assert len(FeatureTable(features).index()) == 28  # two could not be read
    (second,) = tmp_path.glob(".features.*.usearch")
    assert second != first


def test_the_options_are_kept_with_the_features(features: Path) -> None:
    said = json.loads(pq.read_schema(features).metadata[b"hiwl"])
    model = digest_of_sums(Path("models/choice"))
    asked = {"weights": "models/choice", "node": "root", "components": None}
    assert said == asked | {"model": model, "scale": 1.0, "arcsec": None, "radius": None}


def test_a_picture_is_not_looked_for_among_features_of_other_weights(features: Path, tmp_path: Path) -> None:
    sums = Path("models/choice/SHA256SUMS")
    sums.write_text(sums.read_text() + "0  renewed\n")
    (tmp_path / "new.jpg").write_bytes(jpeg(5))
    with pytest.raises(HiwlError, match="made by other weights than models/choice holds now; `hiwl embed` it anew"):
        similar.main(str(tmp_path / "new.jpg"), str(features), 5, str(tmp_path / "page.html"))
    Path("models/choice").rename("models/elsewhere")
    with pytest.raises(HiwlError, match="made by the model models/choice, which a picture must be shown to, but: "):
        similar.main(str(tmp_path / "new.jpg"), str(features), 5, str(tmp_path / "page.html"))
