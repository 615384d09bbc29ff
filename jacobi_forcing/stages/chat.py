"""chat: talk with a model in turns, each answer printed as its tokens settle."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module

from rich.console import Console

from jacobi_forcing.config import ChatConfig
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.decoding import Finished, Forward, Request, Sampling, make_strategy
from jacobi_forcing.decoding.generation import Rules, stop_strings
from jacobi_forcing.decoding.loop import DecodingLoop
from jacobi_forcing.decoding.stream import TextStream
from jacobi_forcing.drawing.terminal import figures, forcing_hint, say
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.stages.machine import check_block_size, open_model, sampling_settings, tuned

_HELP = """\
/system TEXT  give the model this system message from now on; without TEXT, none
/reset        begin a new conversation; the system message stays
/help         show this
/quit         leave, as Ctrl-D does
Ctrl-C stops an answer. A line that should not be a command may begin with a space."""
_ANSWER_SHARE = 4  # at least this part of the context is kept for an answer, or --max-new-tokens
_SEEDS = 1 << 64


def run(config: ChatConfig) -> None:
    """Answer the lines of standard input, a turn each, until it ends or one is `/quit`.

    Raises:
        JacobiForcingError: The model has no chat template, a setting does not fit it, or standard
            input is no terminal and a line of it cannot be answered.
    """
    model = open_model(config).for_chat()
    if model.tokenizer.chat_template is None:
        raise ConfigError(
            f"{config.model}: its tokenizer has no chat template, so it knows no turns. Continue "
            "a text with `jacobi decode`, or take a model that was trained to chat."
        )
    config = tuned(config, model)
    check_block_size(config, model)
    is_terminal = sys.stdin.isatty()
    talk = Conversation(config, model)
    if is_terminal:
        talk.note("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves.")
    for line in _typed() if is_terminal else sys.stdin:
        try:
            if not talk.hear(line.rstrip("\n")):
                return
        except DataError as error:
            if not is_terminal:
                raise
            talk.note(str(error))


class Conversation:
    """What was said, and the loop that keeps the cache of it from one answer to the next."""

    def __init__(self, config: ChatConfig, model: CausalLM):
        self.config, self.model = config, model
        self.sampling, self.rules = Sampling(**sampling_settings(config, model)), Rules(model)
        self.context_tokens = min(config.max_tokens, model.context_tokens)
        self.loop = DecodingLoop(
            model,
            max_tokens=self.context_tokens,
            branch_tokens=config.branch_tokens,
            prefix_tokens=self.context_tokens,
        )
        self.system = config.system
        self.turns: list[dict[str, str]] = []
        self.num_answers = 0
        self.console = Console(soft_wrap=True, highlight=False, markup=False)
        self.is_hint_said = False

    def note(self, text: str) -> None:
        """Print what the model did not say."""
        self.console.print(text, style="dim")

    def hear(self, line: str) -> bool:
        """Take in a line, a command or a turn; return whether the talk goes on.

        Raises:
            DataError: There is no such command, or the line cannot be put to the model; it is
                forgotten.
        """
        if line.startswith("/"):
            return self._obey(*line.split(maxsplit=1))
        if line.strip():
            self.turns.append({"role": "user", "content": line.strip()})
            try:
                prompt = self._prompt()
            except DataError:
                self.turns.pop()
                raise
            self._answer(prompt)
        return True

    def _obey(self, command: str, text: str = "") -> bool:
        if command == "/help":
            self.note(_HELP)
        elif command == "/reset":
            self.turns.clear()
            self.note("a new conversation")
        elif command == "/system":
            self.system = text.strip()
            self.note("the system message is set" if self.system else "no system message")
        elif command not in ("/quit", "/exit"):
            raise DataError(f"{command}: no such command; /help lists them.")
        return command not in ("/quit", "/exit")

    def _prompt(self) -> list[int]:
        """Render the conversation; the oldest turns are dropped where the context is full."""
        wanted = min(self.config.max_new_tokens, self.context_tokens // _ANSWER_SHARE)
        num_dropped = 0
        while True:
            ids = self._rendered(self.turns[num_dropped:])
            if len(ids) + wanted <= self.context_tokens or num_dropped + 1 == len(self.turns):
                break
            num_dropped += 2  # a question and its answer
        if len(ids) >= self.context_tokens:
            raise DataError(
                f"this message makes a prompt of {len(ids)} tokens, but the context of "
                f"{self.context_tokens} has to hold the answer too. Shorten it."
            )
        if num_dropped:
            self.turns = self.turns[num_dropped:]
            self.note(
                f"the context of {self.context_tokens} tokens is full: the oldest {num_dropped} "
                "turns are dropped"
            )
        return ids

    def _rendered(self, turns: list[dict[str, str]]) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return encode({"messages": [*system, *turns]}, self.model.tokenizer, "this chat", None)

    def _answer(self, prompt: list[int]) -> None:
        config, number = self.config, self.num_answers
        self.num_answers += 1
        sampling = replace(self.sampling, seed=(config.seed + number) % _SEEDS)
        room = min(config.max_new_tokens, self.context_tokens - len(prompt))
        request = Request(
            number,
            prompt,
            config.max_new_tokens,
            self.rules.apply(sampling, prompt, room),
            stop_strings(self.rules.config),
        )
        strategy = make_strategy(config.decoder, self.model.vocab_tokens, f"{config.seed}/{number}")
        start = time.perf_counter()
        self.loop.add(request, strategy)
        finished = self._decoded(number)
        seconds = time.perf_counter() - start
        ids = finished.answer_ids
        text = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        self.turns.append({"role": "assistant", "content": text})
        if not text.strip():  # nothing to refer to later, and some templates refuse it
            del self.turns[-2:]
        self.console.out("\n", end="")
        self.note(figures(len(ids), finished.num_forwards, seconds) + self._ending(finished))
        hint = forcing_hint(config.strategy, len(ids), finished.num_forwards)
        if hint and not self.is_hint_said:
            self.is_hint_said = True
            self.note(hint)

    def _decoded(self, number: int) -> Finished:
        """Print the answer as it settles; Ctrl-C ends it where it is."""
        stream = TextStream(self.model.tokenizer)
        with _interrupts() as asked_to_stop:
            while True:
                if asked_to_stop.is_set():
                    self.loop.cancel(number)
                for event in self.loop.step():
                    if isinstance(event, Forward):
                        say(stream.push(event.accepted))
                    else:
                        say(stream.finish())
                        return event

    def _ending(self, finished: Finished) -> str:
        if finished.reason == "cancelled":
            return "; stopped"
        if finished.reason == "length":
            is_long = len(finished.answer_ids) == self.config.max_new_tokens
            return f"; cut off by {'--max-new-tokens' if is_long else 'the end of the context'}"
        return "" if len(finished.answer_ids) > 1 else "; the model ended at once"


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Let a first Ctrl-C be noted only, because a forward may be under way; a second one raises."""
    noted = threading.Event()

    def note(*_) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def _typed() -> Iterator[str]:
    """Yield what is typed at a prompt, line by line."""
    with suppress(ImportError):
        import_module("readline")  # with which lines can be edited, and earlier ones come again
    while True:
        try:
            yield input("> ")
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\nCtrl-D or /quit leaves.\n")
