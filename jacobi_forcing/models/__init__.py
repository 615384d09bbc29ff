"""The boundary to Hugging Face: load any causal LM, run it on ragged rows, refuse what goes wrong.

The only room that knows transformers' model interface. May import: config, errors.
"""

from jacobi_forcing.models.cache import SlotCache
from jacobi_forcing.models.causal_lm import CausalLM
from jacobi_forcing.models.compiled import CompiledForward, CompiledStep, make_forward
from jacobi_forcing.models.forward import Branches, RaggedForward
from jacobi_forcing.models.loading import load_model
from jacobi_forcing.models.masks import MaskBuilder

__all__ = [
    "Branches",
    "CausalLM",
    "CompiledForward",
    "CompiledStep",
    "MaskBuilder",
    "RaggedForward",
    "SlotCache",
    "load_model",
    "make_forward",
]
