"""Code out of what a model wrote, and into a program."""

import re
import warnings
from textwrap import dedent, indent

from jacobi_forcing.problems.published.reply_text import final_text

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)  # the last may lack its end
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)


def code_of(text: str, name: str) -> str:
    """Take the code out of a chat answer.

    Of several fenced blocks the last that defines the function counts, because a model corrects
    itself downwards; if none does, it is the first, which may be the function's body. Without
    fences it is the function with the valid code around it.

    Args:
        text: What a model wrote.
        name: Of the function.
    """
    text = final_text(text)
    blocks = [dedent(block) for block in _FENCE.findall(text)]
    if not blocks:
        return _unfenced(text, name)
    return next((block for block in reversed(blocks) if defines(block, name)), blocks[0])


def _unfenced(text: str, name: str) -> str:
    """Give the longest valid code around the function; all of the text if there is none."""
    lines = text.splitlines(keepends=True)
    head = next((n for n, line in enumerate(lines) if defines(line, name)), None)
    if head is None:
        return text
    start = next(n for n in range(head + 1) if n == head or is_valid("".join(lines[n:head])))
    ends = range(len(lines), head, -1)
    end = next((n for n in ends if is_valid("".join(lines[start:n]))), len(lines))
    return "".join(lines[start:end])


def defines(code: str, name: str) -> bool:
    """Tell whether code has a function of this name that is nobody's method."""
    return re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE) is not None


def fitting(head: str, body: str) -> str:
    """Give a function's body the indentation that its head needs.

    Tokenizers drop spaces at an answer's begin, and models the indentation of a whole block.

    Args:
        head: Code that ends inside of a function.
        body: What is to follow. It comes back as it is if no indentation makes it valid.
    """
    spaces = body.expandtabs(4)
    tried = [body, spaces, *(" " * n + spaces for n in range(1, 5)), indent(dedent(spaces), "    ")]
    return next((one for one in tried if is_valid(head + one)), body)


def is_valid(source: str) -> bool:
    """Tell whether Python can compile a text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return False
    return True


def join_program(*parts: str) -> str:
    """Put the parts of a program together; imports from the future go first, as they must."""
    source = "\n".join(parts) + "\n"
    return "".join(_FUTURE.findall(source)) + _FUTURE.sub("", source)
