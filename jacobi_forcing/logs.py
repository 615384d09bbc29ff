"""What a command prints to standard error while it works."""

import logging
import os
import sys
from importlib import import_module
from typing import Any, TextIO


class _Stderr(logging.StreamHandler):
    """Writes to what `sys.stderr` is by then: while a bar is drawn, lines go above it."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        pass


def set_up_logging() -> None:
    """Print our messages plainly, and not those of others; before transformers is imported."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_Stderr()])
    logging.getLogger(__package__).setLevel(logging.INFO)  # where others set up logging before
    for noisy in ("httpx", "accelerate", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its messages itself
    # Where torchao is installed, transformers imports it, and it reports kernels of other devices.
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # Their bars and advice would drown ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def begin(module: str, function: str, *arguments: Any) -> None:
    """Set logging up, and import and call a function only then: where a process begins."""
    set_up_logging()
    getattr(import_module(module), function)(*arguments)
