import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiwl.service import app
from hiwl.service.app import Guard, Limits, Measures

LIMITS = Limits(body=1000, requests=2)


class Inner:
    """An application that answers what it is told, when it is told."""

    def __init__(self, status: int = 200, body: bytes = b"{}", waits: bool = False) -> None:
        self.status, self.body, self.got = status, body, b""
        self.go = asyncio.Event()
        if not waits:
            self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.got = (await receive())["body"]
        await self.go.wait()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


async def ask(
    guard: Guard,
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    method: str = "POST",
    is_typed: bool = True,
) -> tuple[int, dict[str, str], bytes]:
    """A request, its body in two parts."""
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    typed = {"Content-Type": "application/json"} if is_typed else {}
    given = [(name.lower().encode(), value.encode("latin-1")) for name, value in (typed | (headers or {})).items()]
    scope = {"type": "http", "method": method, "path": "/invocations", "headers": given}
    await guard(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


def run(inner: Inner, *arguments: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
    return asyncio.run(ask(Guard(inner, LIMITS, Measures()), *arguments, **more))  # type: ignore[arg-type]


def test_a_request_and_its_answer_pass_through_with_an_id() -> None:
    inner = Inner(body=b"answer")
    status, headers, body = run(inner, b"question")
    assert (status, body, inner.got) == (200, b"answer", b"question")
    assert headers["content-length"] == "6"
    assert len(headers["x-request-id"]) == 32
    assert run(inner, headers={"X-Request-ID": "mine-7"})[1]["x-request-id"] == "mine-7"
    assert "\n" not in run(inner, headers={"X-Request-ID": "no\nheader: x"})[1]["x-request-id"]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1001"}, {"Content-Length": "-1"}, {"Content-Length": "x"}])
def test_what_is_too_large_is_refused_and_never_reaches_the_model(headers: dict[str, str]) -> None:
    inner = Inner()
    status, _, body = run(inner, b"x" * 1001, headers=headers)
    assert (status, inner.got) == (413, b"")
    assert json.loads(body)["message"] == "too large: at most 0 MB are taken in a request"


def test_a_body_where_none_belongs_and_a_request_without_a_content_type_are_refused() -> None:
    assert run(Inner(), b"body", method="PUT")[0] == 413
    assert run(Inner(), b"", method="GET")[0] == 200
    bare = {"Content-Length": "2"}
    assert asyncio.run(ask(Guard(Inner(), LIMITS, Measures()), headers=bare, is_typed=False))[0] == 415  # type: ignore[arg-type]


def test_a_request_that_does_not_come_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PATIENCE", 0.05)

    async def crowd() -> None:
        guard = Guard(Inner(), LIMITS, Measures())  # type: ignore[arg-type]
        sent: list[MutableMapping[str, Any]] = []

        async def never() -> MutableMapping[str, Any]:
            await asyncio.sleep(60)
            return {}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/x\nFORGED", "headers": []}
        slow = [asyncio.create_task(guard(dict(scope), never, send)) for _ in range(9)]
        await asyncio.sleep(0)
        assert (await ask(guard))[0] == 200
        await asyncio.gather(*slow)
        assert {message["status"] for message in sent if "status" in message} == {408}

    asyncio.run(crowd())


def test_more_requests_than_can_be_answered_are_told_to_try_again() -> None:
    async def crowd() -> None:
        inner = Inner(waits=True)
        guard = Guard(inner, LIMITS, Measures())  # type: ignore[arg-type]
        waiting = [asyncio.create_task(ask(guard)) for _ in range(2)]
        await asyncio.sleep(0)
        status, headers, body = await ask(guard)
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["message"] == "busy: 2 requests are being answered; try again"
        inner.go.set()
        assert [answer[0] for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert (await ask(guard))[0] == 200

    asyncio.run(crowd())


@given(st.sampled_from([400, 415, 422, 500, 504]), st.binary(max_size=300))
def test_errors_repeat_nothing_of_the_request_or_the_server(status: int, said: bytes) -> None:
    secret = b"/home/someone/secret" + said
    for content in (secret, json.dumps({"message": secret.decode("latin-1"), "stack_trace": "File /x"}).encode()):
        found, headers, body = run(Inner(status, content))
        assert found == status
        assert b"secret" not in body
        assert set(json.loads(body)) == {"message", "request_id"}
        assert headers["content-type"] == "application/json"


def test_the_models_own_words_about_a_request_are_passed_on() -> None:
    said = {"message": "Failed to predict data '   image\n0  secret'. \nError: hiwl: alpha is 7: a share is needed"}
    assert json.loads(run(Inner(400, json.dumps(said).encode()))[2])["message"] == "alpha is 7: a share is needed"


def test_what_fails_unforeseen_is_a_500_and_what_was_asked_is_counted() -> None:
    class Broken(Inner):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise RuntimeError("secret")

    measures = Measures()
    guard = Guard(Broken(), LIMITS, measures)  # type: ignore[arg-type]
    status, _, body = asyncio.run(ask(guard, b"four"))
    assert status == 500
    assert b"secret" not in body
    labels = {"path": "/invocations", "status": "500"}
    assert measures.registry.get_sample_value("hiwl_requests_total", labels) == 1
    assert measures.registry.get_sample_value("hiwl_received_bytes_total") == 4
    assert measures.registry.get_sample_value("hiwl_requests_under_way") == 0
