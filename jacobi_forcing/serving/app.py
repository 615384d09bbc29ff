"""The web application: OpenAI's routes over a service, and every mistake in OpenAI's format."""

import asyncio
import html
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from jacobi_forcing import __version__
from jacobi_forcing.config import split
from jacobi_forcing.drawing.template import fill
from jacobi_forcing.serving.asked import RefusedError
from jacobi_forcing.serving.engine import BusyError, ClosedError
from jacobi_forcing.serving.guard import Guard
from jacobi_forcing.serving.replies import error_body
from jacobi_forcing.serving.schema import ChatBody, CompletionBody
from jacobi_forcing.serving.service import FailedError, Service


def make_app(
    service: Service,
    *,
    api_key: str = "",
    max_body_bytes: int = 1 << 20,
    allow_origin: str = "",
    hosts: Sequence[str] = (),
) -> Any:
    """Make the ASGI application.

    Args:
        service: What answers.
        api_key: See Guard.
        max_body_bytes: See Guard.
        allow_origin: Web origins whose pages may ask, separated by commas.
        hosts: See Guard.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        service.schema_reader.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(service.engine.close)
        await asyncio.to_thread(service.reader.grammars.close)

    app = FastAPI(
        title="Jacobi Forcing",
        version=__version__,
        description="An OpenAI-compatible server that settles several tokens per forward pass.",
        lifespan=lifespan,
    )
    _add_routes(app, service)
    _add_errors(app)
    guarded = Guard(
        app,
        api_key=api_key,
        max_body_bytes=max_body_bytes,
        hosts=hosts,
        count=lambda status: service.metrics.requests.labels(status).inc(),
    )
    origins = [origin for origin in split(allow_origin) if origin]
    if not origins:
        return guarded
    # Around the guard: a page has to be able to read that its key was refused.
    return CORSMiddleware(guarded, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text}
    for status, text in {
        400: "What was asked cannot be done; the error says why.",
        401: "The key is missing or wrong.",
        404: "There is no such model.",
        413: "The body is too large.",
        429: "Too many requests are waiting; try again after Retry-After seconds.",
        500: "The model failed.",
        503: "The server is about to stop.",
    }.items()
}


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", responses=_ERRORS)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a chat; needs a model with a chat template."""
        return await service.answer(body, request)

    @app.post("/v1/completions", responses=_ERRORS)
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continue a text."""
        return await service.answer(body, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the one model that is here, and what it can do."""
        return {"object": "list", "data": [_described(service)]}

    @app.get("/v1/models/{name:path}", responses={404: _ERRORS[404]})
    async def model(name: str) -> dict[str, Any]:
        """Describe the model."""
        service.check_name(name)
        return _described(service)

    @app.get("/health")
    async def health() -> Response:
        """Tell whether requests are answered."""
        is_well = service.engine.is_alive
        text = "ok" if is_well else "the engine has stopped"
        return JSONResponse({"status": text}, status_code=200 if is_well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Count, for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        # What the page may load, it says itself; that nobody else frames it takes a header.
        policy = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        text = fill("playground.html", {"title": html.escape(service.name)})
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def _described(service: Service) -> dict[str, Any]:
    """Describe the model and what it can do."""
    decoder, tokenizer = service.engine.decoder, service.engine.facts.tokenizer
    return {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "jacobi-forcing",
        "max_model_len": service.reader.limits.max_tokens,
        "jacobi": {
            "strategy": decoder.strategy,
            "block_size": decoder.block_size,
            "pool_size": decoder.pool_size,
            "has_chat_template": tokenizer.chat_template is not None,
            "examples": service.examples,
        },
    }


def _add_errors(app: FastAPI) -> None:
    """Answer every mistake in OpenAI's format."""

    def reply(status: int, message: str, headers: dict | None = None, **more: Any) -> JSONResponse:
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = error_body(message, kind=kind, **more)
        return JSONResponse(body, status_code=status, headers=headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        status = 404 if error.code == "model_not_found" else 400
        return reply(status, str(error), field=error.field, code=error.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body") or None
        text = first["msg"] if field is None else f"{field}: {first['msg']}"
        return reply(400, text, field=field)

    @app.exception_handler(FailedError)
    async def failed(_: Request, error: FailedError) -> JSONResponse:
        if error.is_late:
            return reply(503, str(error), {"Retry-After": "1"}, code="too_late")
        return reply(500 if error.is_ours else 400, str(error))

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        headers = {"Retry-After": f"{error.seconds:.0f}"}
        return reply(429, str(error), headers, code="too_many_requests")

    @app.exception_handler(ClosedError)
    async def closed(_: Request, error: ClosedError) -> JSONResponse:
        return reply(503, "the server is about to stop.", code="stopping")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return reply(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def ours(_: Request, error: Exception) -> JSONResponse:
        return reply(500, "the server failed on this request; its log says why.")
