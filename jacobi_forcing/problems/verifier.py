"""Asks a function of the user's whether answers are good, in processes that may hang or die.

No sandbox: the function runs as the user. What is kept from harm is the run itself: every answer
has a time limit, and a process that overruns it is killed with all that it started.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from jacobi_forcing.errors import ConfigError

_START_SECONDS = 120.0  # a verifier may import large libraries
_CHILD = Path(__file__).with_name("verifier_child.py")


class Rejection(NamedTuple):
    """Why an answer is not kept; here it is the verifier that says so, or that does not."""

    reason: str  # "verifier-false", "verifier-error", "verifier-timeout", "verifier-died"
    detail: str = ""  # such as the message of an exception


class Verifier:
    """A function (prompt, answer, record) -> bool that is called in child processes.

    Args:
        name: `MODULE:FUNCTION`; the working folder is searched too.
        seconds: Time limit per answer.
        workers: How many processes.

    Raises:
        ConfigError: The function cannot be imported.
    """

    def __init__(self, name: str, *, seconds: float, workers: int):
        self.seconds = seconds
        self._is_closed = False
        self._children = [_Child(name) for _ in range(workers)]
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        problem = self._children[0].start()
        if problem is not None:
            self.close()
            raise ConfigError(f"--verifier: cannot use {name}: {problem.detail}.")

    def judge(self, questions: Sequence[tuple[str, str, Any]]) -> list[Rejection | None]:
        """Ask about (prompt, answer, record) each; None for an answer that is accepted.

        Whatever the function does, raise, hang or end its process, costs no other answer anything.
        """
        with ThreadPoolExecutor(len(self._children)) as pool:
            return list(pool.map(self._judge, questions))

    def _judge(self, question: tuple[str, str, Any]) -> Rejection | None:
        child = self._idle.get()
        try:
            found = None if self._is_closed else child.ask(question, self.seconds)
            if self._is_closed:  # its processes were killed: what was found is no verdict
                raise RuntimeError("the verifier was closed")
            return found
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End all processes; a `judge` that is under way in another thread raises."""
        self._is_closed = True
        for child in self._children:
            child.kill()


class _Child:
    """One process, started when it is first needed, and again after it was killed."""

    def __init__(self, name: str):
        self.name = name
        self.process: subprocess.Popen | None = None

    def start(self) -> Rejection | None:
        """Start it; say why it could not be."""
        self.process = subprocess.Popen(
            # -P: this folder is not searched for modules, or its `math` would be everyone's.
            [sys.executable, "-P", str(_CHILD), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._reply(_START_SECONDS)

    def ask(self, question: tuple[str, str, Any], seconds: float) -> Rejection | None:
        """Ask about one answer; see Verifier.judge."""
        if self.process is None:
            problem = self.start()
            if problem is not None:
                self.kill()
                return problem
        # Records may hold what JSON has no form for, such as dates.
        line = json.dumps(question, default=str).encode() + b"\n"
        with suppress(BrokenPipeError):  # it has died since; the reply will say so
            self.process.stdin.write(line)
            self.process.stdin.flush()
        found = self._reply(seconds)
        if found is not None and found.reason in ("verifier-timeout", "verifier-died"):
            self.kill()
        return found

    def _reply(self, seconds: float) -> Rejection | None:
        """Wait for a line and say what is wrong, if anything."""
        output, end, text = self.process.stdout.fileno(), time.monotonic() + seconds, b""
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while not text.endswith(b"\n"):
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                return Rejection("verifier-timeout", f"no verdict within {seconds:g} s")
            more = os.read(output, 65536)
            if not more:
                return Rejection("verifier-died", "its process ended without a verdict")
            text += more
        found = json.loads(text)
        if "error" in found:
            return Rejection("verifier-error", found["error"])
        return None if found.get("verdict", True) else Rejection("verifier-false")

    def kill(self) -> None:
        """End it, and whatever it has started."""
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
