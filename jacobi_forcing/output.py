"""Standard input, output and error as commands use them: of any encoding, closed or cut off."""

import codecs
import json
import os
import select
import sys

_ESCAPE = "jacobi.escape"


def prepare() -> None:
    """Let every character be printed; a closed stream reads as empty, and takes what is written.

    What an encoding lacks is escaped as in JSON (a `u` and four digits after a backslash), so that
    JSON stays JSON. Bytes of standard input that are no text come through as lone surrogates, which
    prompts may not hold.
    """
    codecs.register_error(_ESCAPE, _escaped)
    for name, errors in (("stdin", "surrogateescape"), ("stdout", _ESCAPE), ("stderr", _ESCAPE)):
        if getattr(sys, name) is None:  # a file that is opened next must not take its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def finish(code: int) -> int:
    """Print what still waits; return the exit code, 1 where what was printed reached nobody."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more
            code = code or unwritten(error)
    return code


def unwritten(error: OSError) -> int:
    """Say why the output could not be written, unless its reader has left; return exit code 1."""
    if not isinstance(error, BrokenPipeError):
        sys.stderr.write(f"jacobi: cannot write the output: {error.strerror}.\n")
    return 1


def is_cut_off() -> bool:
    """Tell whether nobody reads standard output or error any more, as after `| head -1`."""
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        try:
            poll.register(stream.fileno(), 0)
        except (OSError, ValueError):  # no file of the operating system
            continue
        if any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0)):
            return True
    return False


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
