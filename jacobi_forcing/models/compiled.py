"""The same forward, compiled: what does not change from step to step is worked out once.

A small model on a CPU spends its time between operations, a large one on a GPU should spend all of
it reading weights. `torch.compile` fuses what lies between, and on a GPU a whole step is recorded
as a CUDA graph and replayed. Cache, positions and masks are those of the eager forward.

Compiled is the decoding step only, where every token of the input gets logits. A prefill, whose
length is never the same, runs eager.

Shapes: B = rows of this forward, Q = tokens of the longest, K = cache slots it can see,
V = vocabulary, R = rows of the cache, S = its slots.
"""

import logging
import weakref
from collections.abc import Callable, Sequence
from types import FunctionType

import torch
from torch import Tensor
from transformers import Cache

from jacobi_forcing.models.cache import SlotCache
from jacobi_forcing.models.causal_lm import CausalLM, refuse_training
from jacobi_forcing.models.forward import RaggedForward
from jacobi_forcing.models.masks import MaskBuilder

logger = logging.getLogger(__name__)

_MOST_GRAPHS = 256  # that are compiled in a process; PyTorch's own limit is 8
_SLOTS_STEP = 256  # of a CUDA graph: caches, and what a forward sees of them, are its multiples


class CompiledStep:
    """One model's decoding step, compiled when it is first needed; shared by all its caches.

    Args:
        model: The model; its weights may not be replaced from here on.
        static: Pad inputs to the next of a few sizes, because every size is recorded as a CUDA
            graph of its own; by default on a GPU. The code that is compiled takes all sizes.
    """

    def __init__(self, model: CausalLM, static: bool | None = None):
        self.is_static = model.device.type == "cuda" if static is None else static
        self.failure = _what_forbids(model)  # why the eager forward is taken, if it is
        mask = MaskBuilder(model.network)
        _ = model.keeps_logits  # looked up now: a compiler cannot follow how it is cached

        def step(
            ids: Tensor,
            positions: Tensor,
            visible: Tensor,
            key_positions: Tensor,
            slots: Tensor,
            keys: Sequence[Tensor],
            values: Sequence[Tensor],
        ) -> Tensor:
            return model.logits(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask(visible, positions, key_positions),
                past_key_values=_WrittenCache(keys, values, slots, visible.shape[-1]),
                use_cache=True,
                num_outputs=ids.shape[1],
            )

        # An older PyTorch looks at everything in every step.
        can_filter = hasattr(torch.compiler, "skip_guard_on_all_nn_modules_unsafe")
        options = {"guard_filter_fn": _may_change} if can_filter else {}
        if model.device.type == "cuda":
            options["triton.cudagraphs"] = True
        self._step = self._one_token = _compile(step, options)
        if model.device.type == "cpu" and not model.float_fingerprint:  # not quantized
            # Weights are constants: copied into the layout that is multiplied fastest, and fetched
            # from their modules no more. (This cannot be an option of one function.)
            torch._inductor.config.freezing = True
            # A single token's products have kernels of their own, chosen in a minute more: they
            # halve AR's step. For several, nothing was found that is faster than packed weights.
            self._one_token = _compile(step, options | {"max_autotune": True})
        self._idle: SlotCache | None = None  # the last cache that was given back
        self._num_lent = 0
        # One row or token is compiled apart from several, and every model and cache size again.
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, _MOST_GRAPHS)
        # Sizes that happen to be equal once, of rows, tokens and heads, are not always equal.
        torch.fx.experimental._config.use_duck_shape = False
        if self.failure:
            self._say()

    def __call__(self, *inputs) -> Tensor | None:
        """Run a step; None where it could not be compiled, which is said once."""
        try:
            if self.is_static:
                torch.compiler.cudagraph_mark_step_begin()
            return (self._one_token if inputs[0].numel() == 1 else self._step)(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler's errors are of any kind, deep inside
            self.failure = " ".join(str(error).split())[:200] or type(error).__name__
            self._say()
            return None

    def borrow_cache(self, num_rows: int, num_slots: int) -> SlotCache:
        """Give an empty cache of this size: the last one again, where it fits.

        A CUDA graph belongs to the addresses that it was recorded with. Every decode would record
        its graphs again, were its cache a new one.
        """
        cache, self._idle = self._idle, None  # one of another size makes room
        self._num_lent += 1
        if cache is None or (cache.num_rows, cache.num_slots) != (num_rows, num_slots):
            return SlotCache(num_rows, num_slots)
        cache.clear()
        return cache

    def return_cache(self, cache: SlotCache) -> None:
        """Take a cache back that nobody uses any more; beside another in use it is let go."""
        self._num_lent -= 1
        self._idle = None if self._num_lent else cache

    def _say(self) -> None:
        logger.warning("this model is not compiled and decodes eager: %s", self.failure)


def _compile(step: FunctionType, options: dict) -> Callable:
    """Compile a copy of a function.

    PyTorch keeps graphs by code object, and with modules unguarded it would run one model's graph
    with another's weights: so every model has code of its own.
    """
    copied = FunctionType(
        step.__code__.replace(), step.__globals__, step.__name__, None, step.__closure__
    )
    return torch.compile(copied, fullgraph=True, dynamic=True, options=options)


def _may_change(guards: Sequence) -> list[bool]:
    """Choose what is looked at before a step: its inputs, their shapes and PyTorch's modes.

    Modules do not change, nor what packages define: to look through all of it at every step would
    take longer than some layers do.
    """
    of_no_module = torch.compiler.skip_guard_on_all_nn_modules_unsafe(guards)
    return [keep and not guard.is_global for keep, guard in zip(of_no_module, guards, strict=True)]


def _what_forbids(model: CausalLM) -> str:
    """Say why a model is not even tried; nothing where it is."""
    if MaskBuilder(model.network).is_taught:
        return f"{model.config.model_type} reads positions off its mask in Python."
    return ""


class _WrittenCache(Cache):
    """What a compiled step sees of a SlotCache: tensors alone, so that no step is like no other."""

    def __init__(
        self, keys: Sequence[Tensor], values: Sequence[Tensor], slots: Tensor, num_visible: int
    ):
        self.layers = []
        self._stored = (keys, values)  # [R, H, S + 1, D] per layer
        self._slots = slots  # [B, Q] long
        self._rows = torch.arange(slots.shape[0], device=slots.device)[:, None]
        self._num_visible = num_visible

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_, **__
    ) -> tuple[Tensor, Tensor]:
        """Write [B, H, Q, D] keys and values; return views [B, H, num_visible, D]."""
        found = []
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            layer = stored[layer_idx]
            layer[self._rows, :, self._slots] = new.transpose(1, 2)
            found.append(layer[: new.shape[0], :, : self._num_visible])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """As SlotCache: positions and masks are always given explicitly."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Length and offset of the keys that this forward attends to."""
        return self._num_visible, 0

    @property
    def is_compileable(self) -> bool:
        """Keep transformers from compiling on its own."""
        return False


class CompiledForward(RaggedForward):
    """A RaggedForward whose decoding steps are compiled.

    Args:
        model: With a CompiledStep.
        num_rows: As for RaggedForward.
        num_slots: As there.
    """

    def __init__(self, model: CausalLM, num_rows: int, num_slots: int):
        self.step = model.step
        if self.step.is_static:
            num_slots = _up_to(num_slots, _SLOTS_STEP)
        super().__init__(model, num_rows, num_slots)
        if self.step.is_static:
            self.cache = self.step.borrow_cache(num_rows, num_slots)
            weakref.finalize(self, self.step.return_cache, self.cache).atexit = False
        self._stored: tuple[list[Tensor], list[Tensor]] | None = None

    def _can_cut(self, *_) -> bool:
        return False  # what is compiled makes its masks itself

    def run(
        self,
        first_row: int,
        ids: Tensor,
        positions: Tensor,
        visible: Tensor,
        key_positions: Tensor,
        num_outputs: int,
    ) -> Tensor:
        """Run a decoding step compiled, and everything else eager."""
        eager = (first_row, ids, positions, visible, key_positions, num_outputs)
        if first_row or num_outputs < ids.shape[1] or not self.cache.keys or self.step.failure:
            return super().run(*eager)
        # Always the same layout, and no two that are one tensor: otherwise there are more graphs.
        keys = key_positions.expand(ids.shape[0], -1).contiguous()
        inputs = (ids, positions, visible, keys, self.cache.slots.view(ids.shape))
        if self.step.is_static:
            inputs = self._padded_up(*inputs)
        logits = self.step(*inputs, *self._layers())
        if logits is None:
            return super().run(*eager)
        return logits[: ids.shape[0], -ids.shape[1] :]

    def _layers(self) -> tuple[list[Tensor], list[Tensor]]:
        """List the cache's tensors by layer; CUDA graphs are told that they stay where they are."""
        if self._stored is None:
            layers = sorted(self.cache.keys)
            self._stored = (
                [self.cache.keys[i] for i in layers],
                [self.cache.values[i] for i in layers],
            )
            if self.step.is_static:
                for stored in (*self._stored[0], *self._stored[1]):
                    torch._dynamo.mark_static_address(stored, guard=False)
        return self._stored

    def _padded_up(
        self, ids: Tensor, positions: Tensor, visible: Tensor, keys: Tensor, slots: Tensor
    ) -> tuple[Tensor, ...]:
        """Pad to the next sizes: rows behind, tokens on the left, slots that nobody sees behind."""
        (num_rows, width), num_keys = ids.shape, visible.shape[-1]
        rows = min(_next_size(num_rows), self.cache.num_rows)
        left = _next_size(width) - width
        seen = min(_next_slots(num_keys), self.cache.num_slots)
        table = (rows, left + width)
        visible = _grown(visible, (*table, seen), False, left)
        visible[:, :left, 0] = True  # a row that sees nothing would be NaN in some kernels
        visible[num_rows:, :, 0] = True
        return (
            _grown(ids, table, self.model.pad_id, left),
            _grown(positions, table, 0, left),
            visible,
            _grown(keys, (rows, seen), 0),
            _grown(slots, table, self.cache.padding_slot, left),
        )


def make_forward(model: CausalLM, num_rows: int, num_slots: int) -> RaggedForward:
    """Make the forward that a model was loaded for: compiled, or eager.

    Raises:
        ModelError: The model is in training mode.
    """
    refuse_training(model.name, model.network)
    kind = RaggedForward if model.step is None else CompiledForward
    return kind(model, num_rows, num_slots)


def _grown(tensor: Tensor, shape: Sequence[int], value: int, left: int = 0) -> Tensor:
    """Grow a tensor behind its end, and `left` places before its second dimension.

    The result is contiguous, whatever came in: what is compiled for one layout in memory is
    compiled again for another.
    """
    grown = tensor.new_full(shape, value)
    rows, width, *more = tensor.shape
    grown[(slice(rows), slice(left, left + width), *map(slice, more))] = tensor
    return grown


def _up_to(number: int, step: int) -> int:
    return -(-number // step) * step


def _next_slots(number: int) -> int:
    """Give the next of few sizes, of which at most an eighth is padding where they are large.

    Whole steps up to sixteen, from there eight sizes until it has doubled: a context of 128
    thousand tokens has 56 sizes, and not 512, each with a CUDA graph to record.
    """
    power = 1 << (number - 1).bit_length()
    return _up_to(number, max(_SLOTS_STEP, power // 16))


def _next_size(number: int) -> int:
    """Give the next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...; few sizes, and little padding."""
    power = 1 << (number - 1).bit_length()
    return power * 3 // 4 if number <= power * 3 // 4 and power > 2 else power
