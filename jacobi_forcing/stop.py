"""Being told to stop, by Ctrl-C, SIGTERM or SIGHUP: nothing ends without a word."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# torchrun passes on the Ctrl-C that its processes have had from the terminal already.
_SAME_SECONDS = 2.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0


class Stopped(KeyboardInterrupt):
    """A signal ended the work.

    Args:
        number: The signal's.
        kept: What is kept, in whole sentences; "" where nobody has said it yet.
    """

    def __init__(self, number: int = signal.SIGINT, kept: str = ""):
        super().__init__(kept)
        self.number, self.kept = number, kept

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


@contextmanager
def stopping() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Stopped`, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(stop, SIGNALS[1:]):
        yield


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Say what is kept, where a signal ends the work inside."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if type(stop) not in (KeyboardInterrupt, Stopped) or getattr(stop, "kept", ""):
            raise
        raise Stopped(getattr(stop, "number", signal.SIGINT), kept()) from None


class StopRequest:
    """Takes a first signal for a wish to stop at the next good place; a second one ends the work.

    Signals reach the main thread only: elsewhere this does nothing.

    Args:
        promise: Says what will be finished before the work ends, in one sentence.
    """

    def __init__(self, promise: Callable[[], str]):
        self.promise = promise
        self.number = 0  # of the signal that came
        self._when = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals for wishes inside."""
        with _handled(self._note, SIGNALS):
            yield

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number and time.monotonic() - self._when >= _SAME_SECONDS:
            raise Stopped(number)
        if not self.number:
            self.number, self._when = number, time.monotonic()
            name = signal.Signals(number).name
            # A print that the signal interrupted may hold the stream.
            text = f"\n{name}: {self.promise()} A second signal leaves at once.\n"
            if int(os.environ.get("RANK", 0)) == 0:
                os.write(sys.__stderr__.fileno(), text.encode())


@contextmanager
def _handled(handler: Callable, numbers: tuple[int, ...]) -> Iterator[None]:
    """Handle signals inside, but for those that whoever started this process has turned off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
