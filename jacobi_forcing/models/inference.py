"""Without gradients, once for all of a decode."""

from collections.abc import Callable
from functools import wraps

import torch


def inferring(function: Callable) -> Callable:
    """Run in `torch.inference_mode()`, which is entered only where the caller has not done it.

    To enter it takes a good part of what a small model's step takes beside its forward.
    """

    @wraps(function)
    def run(*args, **kwargs):
        if torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode():
            return function(*args, **kwargs)

    return run
