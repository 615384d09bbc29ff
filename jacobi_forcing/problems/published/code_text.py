"""Code out of what a model wrote, and into a program."""

import re
import warnings
from textwrap import dedent, indent

from jacobi_forcing.problems.fences import block_with, defines, fenced_blocks
from jacobi_forcing.problems.published.reply_text import final_text

_FUTURE = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)


def code_of(text: str, name: str) -> str:
    """Take the code out of a chat answer.

    Of several fenced blocks the last that defines the function counts, because a model corrects
    itself downwards. If none does, it is the function in the text with the valid code around it,
    or else the first block, which may be the function's body.

    Args:
        text: What a model wrote.
        name: Of the function.
    """
    text = final_text(text)
    blocks = [_without_glued_end(block) for block in fenced_blocks(text) if block.strip()]
    found = block_with(blocks, name)
    if found is not None:
        return found
    loose = _unfenced(text, name)
    return loose if not blocks or (defines(loose, name) and is_valid(loose)) else blocks[0]


def _without_glued_end(block: str) -> str:
    """Remove a closing fence that a model wrote at the end of a line of code, and all below it."""
    code, fence, _ = block.partition("```")
    return code if fence and not is_valid(block) and is_valid(code) else block


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
