"""The page on which a person answers how interesting galaxies are, for `hiwl odd --ask`; on this machine alone."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel

from hiwl.core.errors import HiwlError
from hiwl.verbs.embed import link
from hiwl.verbs.search import Search
from hiwl.verbs.serve import check_port

PAGE = Path(__file__).with_name("asking.html")
TOP = 24
POLICY = "default-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Answer(BaseModel):
    """What the page sends."""

    row: int
    answer: int


class Undo(BaseModel):
    """Nothing, but as JSON, which pages of other addresses cannot send."""


def create(search: Search) -> FastAPI:
    """The page and what it asks for."""
    app = FastAPI(openapi_url=None)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Content-Security-Policy": POLICY})

    @app.get("/state")
    def state() -> dict[str, Any]:
        return _state(search)

    @app.post("/answer")
    def answer(said: Answer) -> Any:
        try:
            search.answer(said.row, said.answer)
        except HiwlError as error:
            return JSONResponse({"message": str(error)}, 400)
        return _state(search)

    @app.post("/undo")
    def undo(said: Undo) -> dict[str, Any]:
        search.undo()
        return _state(search)

    @app.get("/top")
    def top() -> list[dict[str, Any]]:
        first = search.ranking().head(TOP)
        pictures = search.table.pictures(first["row"].to_numpy())
        return [
            {"row": int(row), "expected": float(expected), "picture": link(jpeg)}
            for row, expected, jpeg in zip(first["row"], first["expected"], pictures, strict=True)
        ]

    return app


def ask(search: Search, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        HiwlError: the port is taken.
    """
    check_port("127.0.0.1", port)
    print(f"odd: http://127.0.0.1:{port}/ asks (keys 1 to 5, u takes back); answers are kept in {search.kept}")
    print("odd: Ctrl-C ends it and writes the ranking", flush=True)
    with suppress(KeyboardInterrupt):  # which uvicorn raises again, when it has stopped
        uvicorn.Server(uvicorn.Config(create(search), "127.0.0.1", port, log_level="warning")).run()


def _state(search: Search) -> dict[str, Any]:
    row = search.current()
    told: dict[str, Any] = {"answered": len(search.answers), "row": row}
    if row is not None:
        given = search.table.given.iloc[row].dropna()
        told["told"] = {str(name): str(value) for name, value in list(given.items())[:6]}
        told["picture"] = link(search.table.pictures(np.array([row]))[0])
    return told
