"""The web application: OpenAI's routes over an engine, streamed or whole."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from jacobi_forcing import __version__
from jacobi_forcing.decoding import Finished, Forward
from jacobi_forcing.drawing.template import fill
from jacobi_forcing.serving.asked import Asked, Reader, RefusedError
from jacobi_forcing.serving.choice import Choice, Piece
from jacobi_forcing.serving.engine import BusyError, ClosedError, Engine, Event, Failed, Job
from jacobi_forcing.serving.guard import Guard
from jacobi_forcing.serving.metrics import Metrics
from jacobi_forcing.serving.replies import Reply, error_body
from jacobi_forcing.serving.schema import ChatBody, CompletionBody

logger = logging.getLogger(__name__)
_BETWEEN_DELIVERIES = 0.02  # seconds
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class FailedError(Exception):
    """A request failed after it was taken in."""

    def __init__(self, failed: Failed):
        super().__init__(failed.message)
        self.is_ours = failed.is_ours


class Mailbox:
    """Brings events from the engine's thread to the answers that wait for them in the event loop.

    Waking the event loop takes Python's lock from the engine, which a small model feels in every
    step. So what follows a delivery within 20 ms comes with the next one, all of it together; what
    begins or ends an answer comes at once.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[_Answering, int, Event]] = deque()
        self._is_expected = False  # a delivery is on its way
        self._timer: asyncio.TimerHandle | None = None

    def put(
        self, loop: asyncio.AbstractEventLoop, to: "_Answering", number: int, event: Event
    ) -> None:
        """Post an event of a choice; from any thread."""
        self._events.append((to, number, event))
        is_urgent = not isinstance(event, Forward) or event.iteration == 0
        if is_urgent or not self._is_expected:
            self._is_expected = True
            loop.call_soon_threadsafe(self._deliver, loop)

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._is_expected = False  # first: what is posted from here on calls again
        has_some = bool(self._events)
        while self._events:
            to, number, event = self._events.popleft()
            to.events.append((number, event))
            to.arrived.set()
        if has_some:
            self._is_expected = True
            self._timer = loop.call_later(_BETWEEN_DELIVERIES, self._deliver, loop)


class Service:
    """Answers bodies with an engine.

    Args:
        name: What clients call the model.
        engine: Started.
        reader: Of the same model.
        time_limit: Seconds that a request may take.
        log_prompts: Write prompts and answers to the log.
        examples: Prompts that the page offers.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        reader: Reader,
        *,
        time_limit: float,
        log_prompts: bool,
        examples: Sequence[str] = (),
    ):
        self.name = name
        self.engine = engine
        self.reader = reader
        self.time_limit = time_limit
        self.log_prompts = log_prompts
        self.examples = list(examples)
        self.metrics = Metrics(engine)
        self.mailbox = Mailbox()
        self.created = int(time.time())

    async def answer(self, body: CompletionBody | ChatBody, request: Request) -> Response:
        """Answer a body, streamed or whole."""
        if body.model != self.name:
            raise RefusedError(
                f"the model {body.model!r} is not here; this server has {self.name!r}.",
                "model",
                "model_not_found",
            )
        # Long prompts and grammars take a while: not in the thread that all streams share.
        asked = await asyncio.to_thread(self.reader.read, body)
        answering = _Answering(self, asked)
        answering.begin()
        if body.stream:
            try:
                first = await answering.next()  # what fails at once has a status of its own
            except BaseException:
                answering.let_go()
                raise
            return StreamingResponse(answering.stream(first), media_type="text/event-stream")
        gone = asyncio.create_task(_gone(request))
        whole = asyncio.create_task(answering.whole())
        try:
            await asyncio.wait([whole, gone], return_when=asyncio.FIRST_COMPLETED)
            if not whole.done():
                return Response(status_code=499)  # nobody reads it
            return JSONResponse(whole.result())
        finally:
            gone.cancel()
            whole.cancel()
            answering.let_go()


async def _gone(request: Request) -> None:
    """Wait until the client is gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Answering:
    """One body on its way through the engine."""

    def __init__(self, service: Service, asked: Asked):
        self.service = service
        self.asked = asked
        self.began = time.monotonic()
        model = service.engine.model
        self.choices = [
            Choice(
                number,
                model.tokenizer,
                asked.stop,
                model.eos_ids,
                show_forwards=asked.show_forwards,
            )
            for number in range(len(asked.requests))
        ]
        self.reply = Reply(service.name, asked, self.choices)
        self.jobs: list[Job] = []
        self.events: deque[tuple[int, Event]] = deque()  # by choice, not yet looked at
        self.arrived = asyncio.Event()
        self.texts = [""] * len(self.choices)

    def begin(self) -> None:
        """Hand the requests to the engine."""
        here, mailbox = asyncio.get_running_loop(), self.service.mailbox

        def deliver(number: int, event: Event) -> None:  # in the engine's thread
            mailbox.put(here, self, number, event)

        self.jobs = [
            Job(
                request,
                self.asked.decoder,
                partial(deliver, number),
                self.began + self.service.time_limit,
            )
            for number, request in enumerate(self.asked.requests)
        ]
        self.service.engine.submit(self.jobs)

    def let_go(self) -> None:
        """Break off what is not done; nobody wants it any more."""
        left = [job for job, c in zip(self.jobs, self.choices, strict=True) if not c.is_done]
        if left:
            self.service.engine.cancel(left)

    async def next(self) -> list[Piece]:
        """Wait for the next pieces of any choice, at least one.

        Raises:
            FailedError: A request failed, and with it all of the body's.
        """
        pieces: list[Piece] = []
        while not pieces:
            await self.arrived.wait()
            while self.events:
                number, event = self.events.popleft()
                try:
                    piece = self._piece(number, event)
                except FailedError:
                    if not pieces:
                        raise
                    self.events.appendleft((number, event))  # what was there before goes out first
                    return pieces
                pieces += [] if piece is None else [piece]
            self.arrived.clear()
        return pieces

    def _piece(self, number: int, event: Event) -> Piece | None:
        """Give what an event adds to a choice; None if its text had ended before."""
        choice = self.choices[number]
        if isinstance(event, Failed):
            raise FailedError(event)
        if choice.is_done:  # before the loop saw it
            return None
        if isinstance(event, Finished) and event.reason == "cancelled":  # not by this client
            raise FailedError(Failed(event.request, "the server is about to stop.", True))
        if choice.num_forwards == 0 and all(c.num_forwards == 0 for c in self.choices):
            self.service.metrics.first_token.observe(time.monotonic() - self.began)
        piece = choice.push(event)
        if self.service.log_prompts:
            self.texts[number] += piece.text
        if piece.finish_reason is not None:
            self._end(number)
        return piece

    def _end(self, number: int) -> None:
        """Note that a choice is done."""
        service, choice = self.service, self.choices[number]
        if choice.ended_by == "stop":
            service.engine.cancel([self.jobs[number]])  # where the text ended before the loop saw
        if all(one.is_done for one in self.choices):
            service.metrics.duration.observe(time.monotonic() - self.began)
        if service.log_prompts:
            prompt = service.engine.model.tokenizer.decode(self.asked.prompts[number])
            logger.info("%s\n%r -> %r", self.reply.head["id"], prompt, self.texts[number])

    async def whole(self) -> dict[str, Any]:
        """Wait for all choices; make the reply."""
        pieces: list[list[Piece]] = [[] for _ in self.choices]
        while not all(choice.is_done for choice in self.choices):
            for piece in await self.next():
                pieces[piece.choice].append(piece)
        return self.reply.whole(pieces, self._echoes())

    def _echoes(self) -> list[str]:
        if not self.asked.echo:
            return [""] * len(self.choices)
        decode = self.service.engine.model.tokenizer.decode
        return [decode(prompt, skip_special_tokens=True) for prompt in self.asked.prompts]

    async def stream(self, first: list[Piece]) -> AsyncIterator[str]:
        """Yield server-sent events, those that are there together in one text."""
        try:
            for chunk in self.reply.first_chunks():
                yield _event(chunk)
            for number, echo in enumerate(self._echoes()):
                if echo:
                    yield _event(self.reply.chunk(Piece(number, echo)))
            pieces = first
            while True:
                chunks = [self.reply.chunk(piece) for piece in pieces]
                yield "".join(_event(chunk) for chunk in chunks if chunk is not None)
                if all(choice.is_done for choice in self.choices):
                    break
                pieces = await self.next()
            if self.asked.wants_usage:
                yield _event(self.reply.last_chunk())
        except FailedError as error:
            kind = "server_error" if error.is_ours else "invalid_request_error"
            yield _event(error_body(str(error), kind=kind))
        finally:
            self.let_go()
        yield "data: [DONE]\n\n"


def _event(value: dict[str, Any] | None) -> str:
    return f"data: {_JSON.encode(value)}\n\n"


def make_app(
    service: Service, *, api_key: str = "", max_body_bytes: int = 1 << 20, allow_origin: str = ""
) -> Any:
    """Make the ASGI application.

    Args:
        service: What answers.
        api_key: See Guard.
        max_body_bytes: See Guard.
        allow_origin: Web origins whose pages may ask, separated by commas.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        await asyncio.to_thread(service.engine.close)

    app = FastAPI(
        title="Jacobi Forcing",
        version=__version__,
        description="An OpenAI-compatible server that settles several tokens per forward pass.",
        lifespan=lifespan,
    )
    _add_routes(app, service)
    _add_errors(app)
    origins = [origin.strip() for origin in allow_origin.split(",") if origin.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
        )
    return Guard(
        app,
        api_key=api_key,
        max_body_bytes=max_body_bytes,
        count=lambda status: service.metrics.requests.labels(status).inc(),
    )


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
        engine, limits = service.engine, service.reader.limits
        return {
            "object": "list",
            "data": [
                {
                    "id": service.name,
                    "object": "model",
                    "created": service.created,
                    "owned_by": "jacobi-forcing",
                    "max_model_len": limits.max_tokens,
                    "jacobi": {
                        "strategy": engine.decoder.strategy,
                        "block_size": engine.decoder.block_size,
                        "pool_size": engine.decoder.pool_size,
                        "has_chat_template": engine.model.tokenizer.chat_template is not None,
                        "examples": service.examples,
                    },
                }
            ],
        }

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
        text = fill("playground.html", {"title": service.name})
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


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
