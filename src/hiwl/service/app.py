"""MLflow's scoring application with what a service on a network needs around it, and a page for people.

MLflow's own addresses and forms stay what they are (``/invocations``, ``/ping``, ``/version``). Beside them: the page
(``/``), ``/ready``, ``/metrics`` for Prometheus, and ``/explain``, a Grad-CAM of one picture.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from mlflow.pyfunc import PyFuncModel, scoring_server
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hiwl.service.explain import explain

PAGE = Path(__file__).with_name("page.html")
LOG = logging.getLogger("hiwl.serve")
GIVEN_ID = re.compile(r"[\w.-]{1,64}")
OURS = re.compile(r"\nError: hiwl: (?P<said>[^\n]*)$")  # the model's, as MLflow wraps them
KNOWN = ("/", "/invocations", "/explain", "/ping", "/health", "/version", "/ready", "/metrics")
PATIENCE = 30  # seconds until a request has been sent
POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
SAID = {
    400: "not one of MLflow's forms: JSON with dataframe_split, dataframe_records, instances or inputs; CSV; Parquet",
    404: "no such address",
    405: "no such method at this address",
    408: "the request did not come within {patience} s",
    413: "too large: at most {megabytes} MB are taken in a request",
    415: "send application/json, text/csv or application/vnd.apache.parquet, in UTF-8",
    503: "busy: {most} requests are being answered; try again",
    504: "the time limit has passed; send fewer pictures in a request",
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Limits(NamedTuple):
    """What the service takes."""

    body: int
    """Bytes of a request."""
    requests: int
    """At once; who comes beside them is asked to try again."""


class Measures:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("hiwl_requests", "requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "hiwl_request_seconds", "until a request was answered", ["path"], registry=self.registry
        )
        self.under_way = Gauge("hiwl_requests_under_way", "requests that are being answered", registry=self.registry)
        self.bytes = Counter("hiwl_received_bytes", "bytes of requests", registry=self.registry)


def create(model: PyFuncModel, limits: Limits) -> "Guard":
    """The service for a loaded model."""
    app: FastAPI = scoring_server.init(model)
    measures = Measures()
    inner = model.unwrap_python_model().model

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": not guard.is_stopping}, 503 if guard.is_stopping else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(measures.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/explain")
    async def explained(request: Request) -> Response:
        if not hasattr(inner, "decoded"):  # registered with code of its own, before this was
            return JSONResponse(
                {"message": "\nError: hiwl: this version of the model cannot tell; register it anew"}, 501
            )
        picture = await asyncio.to_thread(explain, inner, await request.body())
        if picture is None:
            return JSONResponse({"message": "\nError: hiwl: not a picture that can be answered"}, 400)
        return Response(picture, media_type="image/png")

    guard = Guard(app, limits, measures)
    return guard


class Guard:
    """Stands before the application: limits, request IDs, measures, and errors that repeat nothing."""

    def __init__(self, app: FastAPI, limits: Limits, measures: Measures) -> None:
        self.is_stopping = False
        self._app = app
        self._limits = limits
        self._measures = measures
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "lifespan":  # the loop begins: a thread for each request, not for each core
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self._limits.requests))
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        answer = _Answer(request_id)
        start = time.perf_counter()
        counts = scope["method"] == "POST"
        body = await self._read(headers, receive, answer, self._limits.body if counts else 0)
        if body is not None and counts and self._under_way >= self._limits.requests:
            answer.fail(503)
        elif body is not None and scope["path"] == "/invocations" and counts and b"content-type" not in headers:
            answer.fail(415)
        elif body is not None:
            self._under_way += counts
            self._measures.under_way.set(self._under_way)
            try:
                await self._pass_on(scope, body, receive, answer)
            finally:
                self._under_way -= counts
                self._measures.under_way.set(self._under_way)
        await answer.send(send, self._limits)
        seconds = time.perf_counter() - start
        path = scope["path"] if scope["path"] in KNOWN else "other"
        self._measures.requests.labels(path, str(answer.status)).inc()
        self._measures.seconds.labels(path).observe(seconds)
        if counts or answer.status >= 400:
            LOG.info("%s %s %s %d in %.3f s", request_id, scope["method"], path, answer.status, seconds)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, answer: "_Answer", most: int) -> bytes | None:
        """The body of a request; None where it is too large, or does not come."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            answer.fail(413)
            return None
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(PATIENCE):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        answer.fail(400)
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        answer.fail(413)
                        return None
        except TimeoutError:
            answer.fail(408)
            return None
        self._measures.bytes.inc(len(body))
        return bytes(body)

    async def _pass_on(self, scope: Scope, body: bytes, receive: Receive, answer: "_Answer") -> None:
        handed = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self._app(scope, replay, answer.take)
        except Exception:
            LOG.exception("%s failed", answer.request_id)
            answer.fail(500)


class _Answer:
    """The application's answer, held until it is whole."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.status = 500
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()

    def fail(self, status: int) -> None:
        self.status, self._headers, self._body = status, [], bytearray()

    async def take(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self._headers = message["status"], list(message["headers"])
        else:
            self._body += message.get("body", b"")

    async def send(self, send: Send, limits: Limits) -> None:
        if self.status >= 400:
            content = {"message": self._said(limits), "request_id": self.request_id}
            self._body = bytearray(json.dumps(content).encode())
            self._headers = [(b"content-type", b"application/json")]
            if self.status == 503:
                self._headers.append((b"retry-after", b"1"))
        headers = [(name, value) for name, value in self._headers if name.lower() != b"content-length"]
        headers += [(b"x-request-id", self.request_id.encode()), (b"content-length", str(len(self._body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(self._body)})

    def _said(self, limits: Limits) -> str:
        """What is wrong: the model's own words, which repeat nothing of a request; never MLflow's, which do."""
        try:
            content = json.loads(self._body)
            said = OURS.search(content["message"]) if isinstance(content, dict) else None
        except (ValueError, KeyError, TypeError):
            said = None
        if said is not None:
            return said["said"]
        words = SAID.get(self.status, "the service failed; its log has the request ID")
        return words.format(megabytes=limits.body >> 20, most=limits.requests, patience=PATIENCE)
