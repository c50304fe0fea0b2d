"""Kaggle's API, spoken by a small server on this machine: whole, cut, refused, damaged downloads."""

import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hiwl.core.errors import HiwlError
from hiwl.core.layout import RAW_IMAGES, RAW_TABLE
from hiwl.core.settings import settings
from hiwl.survey.sources import Kaggle, kaggle
from hiwl.survey.sources.kaggle import IMAGES_ARCHIVE, VOTES_ARCHIVE

ROWS = 12


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def competition(images: int = ROWS, rows: int = ROWS) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    table = "GalaxyID,Class1.1\n" + "".join(f"{100008 + n},0.5\n" for n in range(rows))
    pictures = {f"images_training_rev1/{100008 + n}.jpg": rng.bytes(5000) for n in range(images)}
    return {
        IMAGES_ARCHIVE: zipped({"images_training_rev1/": b"", **pictures}),
        # As packed on a Mac: what begins with ._ is no table.
        VOTES_ARCHIVE: zipped(
            {"__MACOSX/._training_solutions_rev1.csv": b"\0\xff", "training_solutions_rev1.csv": table.encode()}
        ),
    }


TABLE = "GalaxyID,Class1.1\n" + "".join(f"{100008 + n},0.5\n" for n in range(ROWS))


class Api:
    """What the server holds, how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.files = competition()
        self.cut_after: int | None = None  # bytes of a body, after which the connection breaks
        self.status = 302  # of Kaggle's own answer
        self.ranges: list[str | None] = []  # of the requests to the storage host
        self.authorised: list[str | None] = []  # what Kaggle was shown, then what the storage host was

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Kaggle's: it leads to another host."""
        asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.authorised.append(request.headers["Authorization"])
        assert asked["competitionName"] == "galaxy-zoo-the-galaxy-challenge"
        request.send_response(self.status)
        host = self.address.replace("127.0.0.1", "localhost")
        request.send_header("Location", f"{host}/{asked['fileName']}?signed=secret")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def send(self, request: BaseHTTPRequestHandler) -> None:
        """The storage host's."""
        content = self.files[request.path.split("?")[0].rsplit("/", 1)[-1]]
        wanted = request.headers["Range"]
        self.ranges.append(wanted)
        self.authorised.append(request.headers["Authorization"])
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        request.send_response(206 if wanted else 200)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Last-Modified", "Fri, 20 Dec 2013 12:00:00 GMT")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:][: self.cut_after])
        request.close_connection = True


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    from kagglehub import clients
    from kagglesdk import kaggle_env

    monkeypatch.setattr(clients, "search_lib_in_call_stack", lambda name: None)  # pytest's is deep: a second a call
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("KAGGLE"):
            monkeypatch.delenv(name)
    spoken = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            spoken.answer(self)

        def do_GET(self) -> None:
            spoken.send(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    spoken.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, spoken.address)
    monkeypatch.setenv("HIWL_KAGGLE_API_TOKEN", "my-token")
    for name in ("KAGGLE_API_TOKEN", "KAGGLEHUB_CACHE"):  # which the download sets
        monkeypatch.setenv(name, "")
    settings.cache_clear()
    yield spoken
    server.shutdown()
    server.server_close()


def bring(rows: int = ROWS) -> None:
    settings.cache_clear()
    kaggle.bring(Kaggle(kind="kaggle", rows=rows))


def refused() -> str:
    """What `bring` says instead of bringing anything."""
    with pytest.raises(HiwlError) as told:
        bring()
    assert not RAW_IMAGES.exists()
    assert "my-token" not in str(told.value) and "signed" not in str(told.value)
    return str(told.value)


def test_both_archives_arrive_and_are_kept(api: Api) -> None:
    bring()
    assert RAW_IMAGES.read_bytes() == api.files[IMAGES_ARCHIVE]
    assert RAW_TABLE.read_text() == TABLE
    assert api.authorised == ["Bearer my-token", None] * 2  # the token goes to Kaggle alone
    api.cut_after = 0  # what has not changed is not sent again
    bring()


def test_a_cut_download_is_taken_up_by_the_next_call(api: Api) -> None:
    api.cut_after = 20_500
    assert "what has arrived is kept" in refused()
    api.cut_after = None
    api.ranges.clear()
    bring()
    begun, rest, votes = api.ranges
    assert begun is None and votes is None and str(rest).startswith("bytes=")
    assert RAW_IMAGES.read_bytes() == api.files[IMAGES_ARCHIVE]


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "check KAGGLE_API_TOKEN"), (403, "accept the competition's rules"), (404, "no longer has this"), (500, "")],
)
def test_a_refusal_says_what_to_do(api: Api, status: int, advice: str) -> None:
    api.status = status
    said = refused()
    assert str(status) in said and advice in said and "HIWL_KAGGLE_FOLDER" in said


def test_no_network(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:9")
    assert "Check the network" in refused()


def test_no_credentials(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIWL_KAGGLE_API_TOKEN")
    said = refused()
    assert "KAGGLE_USERNAME and KAGGLE_KEY" in said and "HIWL_KAGGLE_FOLDER" in said


def test_a_damaged_archive_is_thrown_away(api: Api) -> None:
    whole = api.files[IMAGES_ARCHIVE]
    api.files[IMAGES_ARCHIVE] = whole[:3000] + b"damage" + whole[3006:]
    assert f"{IMAGES_ARCHIVE}: Kaggle sent a damaged file" in refused()
    api.files[IMAGES_ARCHIVE] = whole
    bring()
    assert RAW_IMAGES.read_bytes() == whole


def test_archives_downloaded_by_hand_are_copied_and_checked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIWL_KAGGLE_FOLDER", "by_hand")
    by_hand = Path("by_hand")
    by_hand.mkdir()
    (by_hand / IMAGES_ARCHIVE).write_bytes(api.files[IMAGES_ARCHIVE])
    assert f"by_hand/{VOTES_ARCHIVE}: not found" in refused()
    (by_hand / VOTES_ARCHIVE).write_bytes(api.files[VOTES_ARCHIVE])
    bring()
    assert RAW_IMAGES.read_bytes() == api.files[IMAGES_ARCHIVE]
    assert (by_hand / IMAGES_ARCHIVE).stat().st_nlink == 1
    assert not api.ranges
    RAW_IMAGES.unlink()
    (by_hand / VOTES_ARCHIVE).write_bytes(api.files[VOTES_ARCHIVE][:-30])
    assert f"by_hand/{VOTES_ARCHIVE}: damaged" in refused()


@pytest.mark.parametrize(
    ("images", "rows", "said"),
    [
        (
            ROWS - 1,
            ROWS,
            "expected 12 galaxies, found 11 images and 12 rows; 1 galaxies have no image, the first: 100019",
        ),
        (ROWS, ROWS - 2, "2 galaxies have no row of votes, the first: 100018, 100019"),
        (ROWS + 1, ROWS + 1, "expected 12 galaxies, found 13 images and 13 rows$"),
    ],
)
def test_what_the_archives_hold_is_checked(tmp_path: Path, images: int, rows: int, said: str) -> None:
    for name, content in competition(images, rows).items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(HiwlError, match=said):
        kaggle.verify(tmp_path / IMAGES_ARCHIVE, tmp_path / VOTES_ARCHIVE, ROWS)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(competition()[IMAGES_ARCHIVE])
    for members, said in (({"readme": b""}, "holds 0 tables"), ({"a.csv": b"id\n1\n"}, "no column GalaxyID")):
        (tmp_path / "votes.zip").write_bytes(zipped(members))
        with pytest.raises(HiwlError, match=said):
            kaggle.verify(tmp_path / "images.zip", tmp_path / "votes.zip", ROWS)
