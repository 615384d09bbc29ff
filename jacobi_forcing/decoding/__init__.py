"""What a forward settles: proposals, acceptance, the one loop, and the events it yields.

Strategies are pure state machines over token ids; only `loop` calls a model. May import: config,
errors, models.
"""

from jacobi_forcing.decoding.batch import decode, decode_one
from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.loop import DecodingLoop
from jacobi_forcing.decoding.noise import Noise
from jacobi_forcing.decoding.request import Request
from jacobi_forcing.decoding.sampling import GREEDY, Sampling
from jacobi_forcing.decoding.strategies import make_strategy

__all__ = [
    "GREEDY",
    "DecodingLoop",
    "Finished",
    "Forward",
    "Noise",
    "Request",
    "Sampling",
    "decode",
    "decode_one",
    "make_strategy",
]
