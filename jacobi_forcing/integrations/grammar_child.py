"""The process in which `grammar.check_size` tries an automaton: a program of its own.

    python -P grammar_child.py

It reads one JSON list [regex, end of sequence, [[token's bytes as hex, ids], ...], megabytes] from
standard input, and ends well where the automaton can be built within that memory, or is refused.
"""

import contextlib
import json
import resource
import sys

import outlines_core


def main() -> None:
    """Build it and throw it away."""
    regex, eos_id, vocabulary, megabytes = json.load(sys.stdin)
    known = outlines_core.Vocabulary(eos_id, {bytes.fromhex(text): ids for text, ids in vocabulary})
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    with contextlib.suppress(ValueError):  # whoever asked will be told why
        outlines_core.Index(regex, known)


if __name__ == "__main__":
    main()
