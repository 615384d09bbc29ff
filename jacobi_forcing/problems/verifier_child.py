"""The process that a verifier runs in: a program of its own, started by `verifier.Verifier`.

    python -P verifier_child.py MODULE:FUNCTION

It reads one question per line of standard input, a JSON list [prompt, answer, record], and writes
one JSON object per answer: {} once the function is imported, then {"verdict": ...} or
{"error": ...}. What the verifier itself prints is thrown away.
"""

import json
import os
import sys
import threading
from importlib import import_module
from queue import SimpleQueue

questions: SimpleQueue = SimpleQueue()
# Standard input and output are ours alone; the verifier gets empty ones.
asked = os.fdopen(os.dup(0), "rb")
replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(os.open(os.devnull, os.O_RDWR), 0)
os.dup2(0, 1)


def reply(**found) -> None:
    """Write one line."""
    replies.write(json.dumps(found) + "\n")
    replies.flush()


def read() -> None:
    """Pass questions on; end the process when its parent has ended, whatever it is doing."""
    for line in asked:
        questions.put(line)
    os._exit(0)


def named(error: BaseException) -> str:
    """Describe an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def main() -> None:
    """Answer questions until there are no more."""
    threading.Thread(target=read, daemon=True).start()
    module, _, function = sys.argv[1].partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        verify = getattr(import_module(module), function)
        if not callable(verify):
            raise TypeError(f"{function} cannot be called")
    except BaseException as error:
        return reply(error=named(error))
    reply()
    while True:
        try:
            verdict = verify(*json.loads(questions.get()))
            if not isinstance(verdict, bool):
                raise TypeError(f"returned {verdict!r}, needed is True or False")
        except BaseException as error:  # SystemExit too: an answer must not end the process
            reply(error=named(error))
        else:
            reply(verdict=verdict)


if __name__ == "__main__":
    main()
