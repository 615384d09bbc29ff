"""Fenced code blocks of a reply, as CommonMark reads them."""

import re
from textwrap import dedent

from markdown_it import MarkdownIt

# Blocks only. A tag such as <answer> on a line of its own hides no fence below it.
_MARKDOWN = MarkdownIt("commonmark").disable(["html_block", "inline", "text_join"])


def fenced_blocks(text: str) -> list[str]:
    """Return the contents of all fenced code blocks, in order.

    A fence begins a line, with up to three spaces before it or within a list item or quotation. The
    last block may lack its end: then it goes on to the end of the text.
    """
    tokens = _MARKDOWN.parse(text)
    return [dedent(token.content) for token in tokens if token.type == "fence"]


def block_with(blocks: list[str], name: str) -> str | None:
    """Return the last block that defines the function `name`, or None: a model corrects itself."""
    return next((block for block in reversed(blocks) if defines(block, name)), None)


def defines(code: str, name: str) -> bool:
    """Return whether code has a function of this name that is nobody's method."""
    return re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE) is not None
