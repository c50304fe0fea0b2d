import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hiwl.core.layout import CLEAN_TABLE, PACKED_IMAGES, PACKED_INDEX, RAW_IMAGES
from hiwl.stages import pack
from hiwl.survey.contracts import ContractError
from pictures import encode, noise


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: dict[str, Any]) -> dict[int, np.ndarray]:
    """An archive of three pictures, of which the clean table asks for two."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    pictures = {11: noise(40, 41), 12: noise(50, 44), 13: noise(60, 60)}
    write({galaxy: encode(picture) for galaxy, picture in pictures.items()}, [12, 11])
    Path("params.yaml").write_text(yaml.safe_dump(committed | {"pack": {"crop": 32, "side": 32}}))
    return pictures


def write(pictures: dict[int, bytes], clean: list[int]) -> None:
    for path in (RAW_IMAGES, CLEAN_TABLE):
        path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(RAW_IMAGES, "w") as file:
        for galaxy, content in pictures.items():
            file.writestr(f"folder/{galaxy}.png", content)
    pd.DataFrame({"GalaxyID": clean, "class": "CRS"}).to_csv(CLEAN_TABLE, index=False)


def test_each_clean_galaxy_is_decoded_into_its_row(survey: dict[int, np.ndarray]) -> None:
    pack.main()
    packed = np.load(PACKED_IMAGES, mmap_mode="r")
    assert pd.read_csv(PACKED_INDEX)["GalaxyID"].tolist() == [12, 11]
    assert packed.shape == (2, 32, 32, 3)
    assert np.array_equal(packed[0], survey[12][9:41, 6:38])
    assert np.array_equal(packed[1], survey[11][4:36, 4:36])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no picture", "11.png: not a JPEG, PNG, TIFF, WebP or FITS"),
        (encode(np.full((40, 40, 3), 9, np.uint8)), "contrast 0"),
    ],
)
def test_a_picture_that_is_bad_or_blank_is_named_and_nothing_is_written(
    survey: dict[int, np.ndarray], content: bytes, said: str
) -> None:
    write({11: content, 12: encode(survey[12])}, [11, 12])
    with pytest.raises(ContractError) as told:
        pack.main()
    assert said in str(told.value)
    assert "GalaxyID 11" in str(told.value)
    assert not PACKED_IMAGES.exists()
    assert not PACKED_INDEX.exists()


def test_a_picture_that_is_too_small_is_told(survey: dict[int, np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    write({11: encode(noise(20, 24)), 12: encode(survey[12])}, [11, 12])
    pack.main()
    told = "1 of 2 pictures, the first folder/11.png: 24 x 20 pixels, smaller than 32 x 32: enlarged"
    assert told in capsys.readouterr().out
    assert np.load(PACKED_IMAGES)[0].any(axis=2).mean() > 0.9
