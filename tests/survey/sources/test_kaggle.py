"""Kaggle's API, spoken by a small server on this machine: whole, cut, changed, refused, damaged downloads."""

import io
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from hiwl.core.errors import HiwlError
from hiwl.survey.sources import kaggle
from hiwl.survey.sources.kaggle import IMAGES_ARCHIVE, VOTES_ARCHIVE

ME = kaggle.Credentials("me", SecretStr("my-key"))
ROWS = 12
OUT = Path("out")
PART = Path(".work/kaggle", f"{IMAGES_ARCHIVE}.part")


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


class Api:
    """What the server holds, how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.files = competition()
        self.etag = '"first"'
        self.knows_if_range = True
        self.cut_after: int | None = None  # bytes of a body, after which the connection breaks
        self.failures: list[int] = []  # statuses to answer the next requests to the API with
        self.ranges: list[str | None] = []  # of the requests to the storage host
        self.storage_auth: list[str | None] = []

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.split("?")[0].rsplit("/", 1)[-1]
        if request.path.startswith("/api/v1/"):
            self.redirect(request, name)
        else:
            self.send(request, self.files[name])

    def redirect(self, request: BaseHTTPRequestHandler, name: str) -> None:
        status = 302
        if request.headers["Authorization"] != "Basic " + b64encode(b"me:my-key").decode():
            status = 401
        elif request.path != f"/api/v1/competitions/data/download/galaxy-zoo-the-galaxy-challenge/{name}":
            status = 404
        elif self.failures:
            status = self.failures.pop(0)
        body = b"" if status == 302 else b'{"message": "says Kaggle"}'
        request.send_response(status)
        # Another host, as far as a client can tell.
        host = self.address.replace("127.0.0.1", "localhost").removesuffix("/api/v1")
        request.send_header("Location", f"{host}/{name}?signed=secret")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def send(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        wanted = request.headers["Range"]
        self.ranges.append(wanted)
        self.storage_auth.append(request.headers["Authorization"])
        start = 0
        if wanted and (request.headers["If-Range"] == self.etag or not self.knows_if_range):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start:][: self.cut_after])
        request.close_connection = True


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kaggle, "BACKOFF", 0.001)
    monkeypatch.setattr(kaggle, "CHUNK", 1000)
    spoken = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            spoken.respond(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    spoken.address = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    yield spoken
    server.shutdown()
    server.server_close()


def download(api: Api, credentials: kaggle.Credentials | None = ME) -> None:
    kaggle.download(OUT, credentials, api.address)


def arrived() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in OUT.iterdir()}


def cut(api: Api) -> int:
    """Break a first download; the bytes that arrived."""
    api.cut_after = 20_500
    with pytest.raises(HiwlError, match=r"attempts.*what has arrived is kept"):
        download(api)
    assert not list(OUT.iterdir())
    api.cut_after = None
    api.ranges.clear()
    return PART.stat().st_size


def test_both_archives_arrive(api: Api) -> None:
    download(api)
    assert arrived() == api.files
    kaggle.verify(OUT / IMAGES_ARCHIVE, OUT / VOTES_ARCHIVE, ROWS)
    assert api.storage_auth == [None, None]  # the key goes to Kaggle alone


def test_a_cut_download_is_taken_up_by_the_next_call(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle, "ATTEMPTS", 1)
    have = cut(api)
    assert 19_000 < have < len(api.files[IMAGES_ARCHIVE])
    download(api)
    assert api.ranges == [f"bytes={have}-", None]
    assert arrived() == api.files


def test_a_cut_download_is_taken_up_within_a_call(api: Api) -> None:
    api.cut_after = 20_500
    download(api)
    assert len(api.ranges) == 5 and arrived() == api.files


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_another_file_on_the_server_starts_anew(
    api: Api, monkeypatch: pytest.MonkeyPatch, knows_if_range: bool
) -> None:
    monkeypatch.setattr(kaggle, "ATTEMPTS", 1)
    cut(api)
    monkeypatch.setattr(kaggle, "ATTEMPTS", 2)
    api.etag, api.knows_if_range = '"second"', knows_if_range
    api.files[IMAGES_ARCHIVE] = api.files[IMAGES_ARCHIVE][::-1][:-100] + competition()[IMAGES_ARCHIVE]
    download(api)
    assert arrived() == api.files


def test_a_part_that_is_whole_is_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle, "ATTEMPTS", 1)
    cut(api)
    PART.write_bytes(api.files[IMAGES_ARCHIVE])  # as left by a call killed before the move
    download(api)
    assert api.ranges == [f"bytes={len(api.files[IMAGES_ARCHIVE])}-", None]
    assert arrived() == api.files


def test_passing_trouble_is_waited_out(api: Api) -> None:
    api.failures = [503, 429, 500]
    download(api)
    assert arrived() == api.files


def test_lasting_trouble_ends_it(api: Api) -> None:
    api.failures = [503] * 99
    with pytest.raises(HiwlError, match=r"503 .*after 5 attempts(.|\n)*HIWL_KAGGLE_FOLDER"):
        download(api)
    assert len(api.failures) == 94


def test_no_network(api: Api) -> None:
    with pytest.raises(HiwlError, match=r"refused.*after 5 attempts.*HIWL_KAGGLE_FOLDER"):
        kaggle.download(OUT, ME, "http://127.0.0.1:9/api/v1")


def test_no_credentials(api: Api) -> None:
    with pytest.raises(HiwlError, match=r"KAGGLE_API_TOKEN.*KAGGLE_USERNAME and KAGGLE_KEY.*HIWL_KAGGLE_FOLDER"):
        download(api, None)


def test_wrong_credentials(api: Api) -> None:
    wrong = kaggle.Credentials("me", SecretStr("not-my-key"))
    with pytest.raises(HiwlError, match=r"401(.|\n)*check KAGGLE_API_TOKEN") as caught:
        download(api, wrong)
    assert "not-my-key" not in str(caught.value) + repr(wrong)


@pytest.mark.parametrize(
    ("status", "advice"), [(403, "accept the competition's rules"), (404, "no longer has this file")]
)
def test_a_refusal_says_what_to_do(api: Api, status: int, advice: str) -> None:
    api.failures = [status]
    with pytest.raises(HiwlError, match=rf"{status}.*says Kaggle(.|\n)*{advice}(.|\n)*HIWL_KAGGLE_FOLDER"):
        download(api)
    assert not list(OUT.iterdir())


def test_a_damaged_archive_is_thrown_away(api: Api) -> None:
    whole = api.files[IMAGES_ARCHIVE]
    for damaged in (whole[: len(whole) // 2], whole[:3000] + b"damage" + whole[3006:]):
        api.files[IMAGES_ARCHIVE] = damaged
        with pytest.raises(HiwlError, match=f"{IMAGES_ARCHIVE}: Kaggle sent a damaged file"):
            download(api)
        assert not PART.exists() and not list(OUT.iterdir())
    api.files[IMAGES_ARCHIVE] = whole
    download(api)
    assert arrived() == api.files


def test_archives_downloaded_by_hand_are_copied_and_checked(api: Api) -> None:
    by_hand = Path("by_hand")
    by_hand.mkdir()
    (by_hand / IMAGES_ARCHIVE).write_bytes(api.files[IMAGES_ARCHIVE])
    with pytest.raises(HiwlError, match=f"HIWL_KAGGLE_FOLDER: by_hand/{VOTES_ARCHIVE}: not found"):
        kaggle.download(OUT, None, "http://no.server", by_hand)
    (by_hand / VOTES_ARCHIVE).write_bytes(api.files[VOTES_ARCHIVE])
    kaggle.download(OUT, None, "http://no.server", by_hand)
    assert arrived() == api.files
    assert (by_hand / IMAGES_ARCHIVE).stat().st_nlink == 1
    (by_hand / VOTES_ARCHIVE).write_bytes(api.files[VOTES_ARCHIVE][:-30])
    with pytest.raises(HiwlError, match=f"HIWL_KAGGLE_FOLDER: by_hand/{VOTES_ARCHIVE}: damaged"):
        kaggle.download(OUT, None, "http://no.server", by_hand)


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


@pytest.mark.parametrize(
    ("members", "said"), [({"readme": b""}, "holds no .csv"), ({"a.csv": b"id\n1\n"}, "no column GalaxyID")]
)
def test_a_table_that_is_none(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    (tmp_path / "images.zip").write_bytes(competition()[IMAGES_ARCHIVE])
    (tmp_path / "votes.zip").write_bytes(zipped(members))
    with pytest.raises(HiwlError, match=said):
        kaggle.verify(tmp_path / "images.zip", tmp_path / "votes.zip", ROWS)
