"""Engines that a process of its own can make: it imports these by their names."""

import os
import time

from toys import toy_model

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.serving.engine import Engine

DECODER = DecoderConfig(block_size=6)


def toy_engine(**settings):
    sizes = {"max_tokens": 80, "prefill_tokens": 9, "prefix_tokens": 200}
    sizes |= {"batch_size": 5, "max_waiting": 100}
    return Engine(toy_model(), DECODER, **sizes | settings)


def refused_engine():
    raise ConfigError("of the test")


def broken_engine():
    raise ZeroDivisionError("of the test")


def crashed_engine():
    os._exit(7)


def endless_engine(path):
    """Say which process this is, and never be done."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


def fails(_):
    """A constraint."""
    raise ValueError("of the test")
