"""Answers OpenAI's bodies with an engine, streamed or whole."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from jacobi_forcing.decoding import Finished
from jacobi_forcing.serving.asked import Asked, Reader, RefusedError
from jacobi_forcing.serving.choice import Choice, Piece
from jacobi_forcing.serving.engine import TOO_LATE, BusyError, Engine, Event, Failed, Job
from jacobi_forcing.serving.engine_process import EngineProcess
from jacobi_forcing.serving.metrics import Metrics
from jacobi_forcing.serving.replies import Reply, error_body
from jacobi_forcing.serving.schema import ChatBody, CompletionBody

logger = logging.getLogger(__name__)
_NOBODY_READS = 499  # nginx's status for a client that is gone
_MOST_SCHEMAS = 16  # bodies whose schema is to be compiled, each for up to ten seconds
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class FailedError(Exception):
    """A request failed after it was taken in."""

    def __init__(self, failed: Failed):
        super().__init__(failed.message)
        self.is_ours = failed.is_ours
        self.is_late = failed.is_late


class Mailbox:
    """Brings events from the engine's thread to the answers that wait for them in the event loop.

    What is posted together wakes the event loop once.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[_Answering, int, Event]] = deque()
        self._is_expected = False  # a delivery is on its way

    def put(
        self, loop: asyncio.AbstractEventLoop, to: "_Answering", number: int, event: Event
    ) -> None:
        """Post an event of a choice; from any thread."""
        self._events.append((to, number, event))
        if not self._is_expected:
            self._is_expected = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_expected = False  # first: what is posted from here on calls again
        while self._events:
            to, number, event = self._events.popleft()
            to.events.append((number, event))
            to.arrived.set()


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
        engine: Engine | EngineProcess,
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
        self.schema_reader = ThreadPoolExecutor(1, "schemas")
        self.num_schemas = 0  # bodies that wait for it
        self.created = int(time.time())

    def check_name(self, name: str) -> None:
        """Raise RefusedError for another model's name."""
        if name != self.name:
            raise RefusedError(
                f"the model {name!r} is not here; this server has {self.name!r}.",
                "model",
                "model_not_found",
            )

    async def answer(self, body: CompletionBody | ChatBody, request: Request) -> Response:
        """Answer a body, streamed or whole."""
        self.check_name(body.model)
        began = time.monotonic()
        gone = asyncio.create_task(_gone(request))
        try:
            asked = await self._read(body, began, gone)
            if asked is None:
                return Response(status_code=_NOBODY_READS)
            return await self._answer(asked, body.stream, began, gone)
        finally:
            gone.cancel()

    async def _read(
        self, body: CompletionBody | ChatBody, began: float, gone: asyncio.Task
    ) -> Asked | None:
        """Turn a body into requests; None where the client is gone before that is done.

        Long prompts take a while: not in the thread that all streams share. Grammars take longer,
        and memory: one at a time, and not in the way of other bodies.
        """
        readers = None
        if self.reader.takes_long(body):
            if self.num_schemas >= _MOST_SCHEMAS:
                raise BusyError(self.reader.grammars.seconds)
            readers = self.schema_reader
        here = asyncio.get_running_loop()
        reading = here.run_in_executor(readers, self.reader.read, body)
        if readers is not None:
            self.num_schemas += 1
            reading.add_done_callback(self._count_schema)
        left = max(0.0, began + self.time_limit - time.monotonic())
        await asyncio.wait([reading, gone], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        reading.cancel()  # what has begun ends by itself, and the next who asks has it
        if gone.done():
            return None
        raise FailedError(Failed(-1, TOO_LATE, is_ours=True, is_late=True))

    def _count_schema(self, _: asyncio.Future) -> None:
        self.num_schemas -= 1

    async def _answer(
        self, asked: Asked, is_stream: bool | None, began: float, gone: asyncio.Task
    ) -> Response:
        """Answer what was read."""
        most = self.engine.batch_size + self.engine.max_waiting
        if len(asked.requests) > most:
            raise RefusedError(
                f"this asks for {len(asked.requests)} answers at once, but this server holds "
                f"{most}, those that wait included.",
                "n",
            )
        answering = _Answering(self, asked, began)
        answering.begin()
        # Of a stream the first piece: what fails at once has a status of its own.
        wanted = asyncio.create_task(answering.next() if is_stream else answering.whole())
        is_streaming = False
        try:
            await asyncio.wait([wanted, gone], return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                return Response(status_code=_NOBODY_READS)
            found = wanted.result()
            if not is_stream:
                return JSONResponse(found)
            is_streaming = True
            return StreamingResponse(answering.stream(found), media_type="text/event-stream")
        finally:
            wanted.cancel()
            if not is_streaming:
                answering.let_go()


async def _gone(request: Request) -> None:
    """Wait until the client is gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Answering:
    """One body on its way through the engine."""

    def __init__(self, service: Service, asked: Asked, began: float):
        self.service = service
        self.asked = asked
        self.began = began  # when the body had come, as `time.monotonic`
        facts = service.engine.facts
        self.choices = [
            Choice(
                number,
                facts.tokenizer,
                asked.stop,
                facts.chat_eos_ids if asked.is_chat else facts.eos_ids,
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
            prompt = service.engine.facts.tokenizer.decode(self.asked.prompts[number])
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
        decode = self.service.engine.facts.tokenizer.decode
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
