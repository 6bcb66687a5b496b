"""A csoftmax model behind HTTP: rows in, labels and probabilities out, and new models without a dropped request.

    CSOFTMAX_MODEL=model.npz uvicorn app:app --http h11 --limit-concurrency 200

The README beside it says what it refuses, and what it leaves to a proxy.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

import csoftmax

MAX_BYTES = 2_000_000  # of a body
MAX_ROWS = 1000  # of a body, and with them the length of the answer
BODY_SECONDS = 5  # for a whole body to arrive
WATCH_SECONDS = 0.5  # between two looks at the model file

log = logging.getLogger("uvicorn.error")


class Served(NamedTuple):
    model: csoftmax.Predictor
    version: str
    loaded_at: datetime
    stamp: tuple[int, int]


def stamp_of(path: str) -> tuple[int, int]:
    """Of another file in the same place another: the time alone is the same in some images and archives."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ino


def read(path: str) -> Served:
    stamp = stamp_of(path)  # first: a file that changes while it is read will be read again
    model = csoftmax.load(path)
    model.predict_proba(np.zeros((MAX_ROWS, model.n_features)))  # imports now what large batches may need
    content = b"".join([model.coef, model.intercept, repr(model.classes.tolist()).encode()])
    return Served(model, hashlib.sha256(content).hexdigest()[:12], datetime.now(UTC), stamp)


def contract(model: csoftmax.Predictor) -> dict[str, Any]:
    """What clients rely on, and what no new model may change."""
    return {"n_features": model.n_features, "feature_names": model.feature_names, "classes": model.classes.tolist()}


class Source:
    """The model that is served. To replace it, replace its file: over HTTP nobody can."""

    def __init__(self, path: str) -> None:
        self.path, self.served, self.problem = path, read(path), ""

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            problem = ""
            try:
                if stamp_of(self.path) != self.served.stamp:
                    new = await asyncio.to_thread(read, self.path)
                    old = contract(self.served.model)
                    if changed := [what for what, value in contract(new.model).items() if value != old[what]]:
                        raise ValueError(f"{self.path} has other {' and '.join(changed)}: give it its own service")
                    self.served = new
                    log.info("Serving model %s", new.version)
            except Exception as error:  # whatever it is, the old model goes on
                problem = str(error)
                if problem != self.problem:
                    log.error("Still serving model %s: %s", self.served.version, problem)
            self.problem = problem


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    watching = asyncio.create_task(source.watch())
    yield
    watching.cancel()


source = Source(os.environ["CSOFTMAX_MODEL"])
app = FastAPI(title="csoftmax", lifespan=lifespan)
width = source.served.model.n_features
# FailFast: a body of a million mistakes gets one error.
Row = Annotated[list[float], FailFast(), Field(min_length=width, max_length=width)]
Rows = Annotated[list[Row], FailFast(), Field(min_length=1, max_length=MAX_ROWS)]
rows_of = TypeAdapter(Rows, config=ConfigDict(strict=True, allow_inf_nan=False))
request_body = {"required": True, "content": {"application/json": {"schema": rows_of.json_schema()}}}


class Answer(BaseModel):
    model: str
    labels: list[Any]
    probabilities: list[list[float]]


async def body_of(request: Request) -> bytes:
    """The body. What is too long is read to its end and dropped: many clients look for an answer only then."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                if len(body) <= MAX_BYTES:
                    body += part
    except TimeoutError:
        reason = f"the body did not arrive within {BODY_SECONDS} seconds"
        raise HTTPException(408, reason, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended before the body did") from None
    if len(body) > MAX_BYTES:
        raise HTTPException(413, f"the body is longer than {MAX_BYTES} bytes: send fewer rows at once")
    return bytes(body)


@app.get("/health")
async def health() -> dict[str, Any]:
    model, version, loaded_at, _ = source.served
    return {"model": version, "loaded_at": loaded_at, "problem": source.problem, **contract(model)}


@app.post("/predict", response_model=Answer, openapi_extra={"requestBody": request_body})
async def predict(request: Request) -> Response:
    """Labels and probabilities of a list of rows; the probabilities are in the order of the classes of /health."""
    body = await body_of(request)
    model, version, *_ = source.served  # one reference: all of the answer is of one model
    try:
        probabilities = model.predict_proba(np.array(rows_of.validate_json(body)))
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_input=False)[0]
        place = ", ".join(f"{what} {i}" for what, i in zip(("row", "column"), mistake["loc"], strict=False)) or "body"
        raise HTTPException(422, f"{place}: {mistake['msg']}") from None
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    labels = model.classes[probabilities.argmax(axis=1)]
    answer = {"model": version, "labels": labels.tolist(), "probabilities": probabilities.tolist()}
    return Response(to_json(answer), media_type="application/json")
