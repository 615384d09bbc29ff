"""Jacobi Forcing: make an ordinary causal language model decode several tokens per forward pass."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load_model": "jacobi_forcing.models",
    "probe": "jacobi_forcing.models.probe",
    "answer": "jacobi_forcing.decoding.answer",
    "generate": "jacobi_forcing.integrations.generate",
    "decode": "jacobi_forcing.decoding",
    "DecodingLoop": "jacobi_forcing.decoding",
    "Request": "jacobi_forcing.decoding",
    "Sampling": "jacobi_forcing.decoding",
    "AutoWidth": "jacobi_forcing.decoding.width",
    "Forward": "jacobi_forcing.decoding",
    "Finished": "jacobi_forcing.decoding",
    "DecoderConfig": "jacobi_forcing.config",
    "Grammar": "jacobi_forcing.integrations.grammar",
    "json_schema": "jacobi_forcing.integrations.grammar",
    "make_strategy": "jacobi_forcing.decoding",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `jacobi --help` need not load PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jacobi_forcing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
