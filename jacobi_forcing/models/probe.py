"""The load-time check that ragged, overwritten drafts change nothing but rounding.

No list of families can promise that, and no fixed tolerance can tell rounding from error: in
bfloat16 the rounding of a deep model is larger than a wrong position's effect on a shallow one. So
the probe measures three distances on the model itself, in its own dtype:

- the model's **rounding**: its plain forward against equal ones of its own, in pieces with
  transformers' cache and in a batch;
- what deliberate **faults** do: positions off by one, a wrong token seen, a right one hidden, a
  stale slot;
- how far our **drafts** are from the plain forward.

Drafts must be nearer to rounding than to the weakest fault. Where rounding is too loud to hear
faults, and where an attention window is too wide to be filled quickly, the same is asked of a
**twin**: a small random model of the same family in float32, with narrow windows. Masks, positions
and cache are the family's and ours; neither knows the weights.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig

from jacobi_forcing.errors import ModelError
from jacobi_forcing.host import cpu_name, user_cache, versions
from jacobi_forcing.models.causal_lm import CausalLM, refuse_training
from jacobi_forcing.models.exact import Shapes, find_shapes
from jacobi_forcing.models.forward import Branches, RaggedForward
from jacobi_forcing.models.small import small

logger = logging.getLogger(__name__)

_TOKENS = 48  # of the longer row
_MOST_TOKENS = 8192  # where a family has no twin and its window must be filled
_GROUP = 6  # tokens of a chain, of a wrong trunk, and of a branch
_TWIN_WINDOW = 12
_TWIN_VOCABULARY = 256

# Changes in place what a forward is told: [B, Q] positions, [B, Q, K] visible slots, and the [B, K]
# positions of slots.
_Fault = Callable[[Tensor, Tensor, Tensor], None]


class Findings(NamedTuple):
    """Distances from a model's plain logits, as fractions of their standard deviation.

    Each is a root mean square over the vocabulary: in float32 at the worst of all places, in half
    precision the median place, because rounding that flips an expert's choice is large at few.
    """

    rounding: float  # of the model's own equal forwards
    fault: float  # the weakest of the deliberate faults
    drafts: float  # ours

    @property
    def limit(self) -> float:
        """The largest distance of drafts that counts as rounding.

        Above rounding itself it is the geometric middle between rounding and the weakest fault.
        """
        return max(2 * self.rounding, (self.rounding * self.fault) ** 0.5)

    @property
    def is_deaf(self) -> bool:
        """Whether rounding hides the weakest fault, at least by half."""
        return self.fault < 4 * self.rounding


def probe(model: CausalLM) -> float:
    """Compare ragged, draft-style forwards with the model's plain one on random ids.

    Two rows of different lengths are prefilled with a wrong draft after them. Then the right tokens
    are written over the draft, the last ones as a branch next to another wrong draft. Their logits
    must be the plain ones up to rounding.

    Returns:
        The difference as a fraction of the plain logits' standard deviation (`Findings.drafts`).

    Raises:
        ModelError: The two differ by more than rounding, so decoding this model would be silently
            wrong, the plain forward is broken already, or the model is in training mode.
    """
    refuse_training(model.name, model.network)
    twin = make_twin(model) if model.dtype != torch.float32 or _window(model) > _TOKENS else None
    if twin is not None:
        try:
            found = examine(twin)
        except ModelError:  # what cannot be made small, or not be run so
            twin = None
        else:
            _judge(model, found, "the same model, small and in float32,")
    num_tokens = _TOKENS if twin is not None else min(_window(model) + 16, _MOST_TOKENS)
    found = examine(model, max(num_tokens, _TOKENS))
    _judge(model, found, "it")
    if found.is_deaf and twin is None:
        logger.warning(
            "%s: in %s its own rounding (%.2g standard deviations) hides what a wrong mask would "
            "do (%.2g), so the check at loading is weak. --dtype float32 checks it sharply.",
            *(model.name, _name(model.dtype), found.rounding, found.fault),
        )
    return found.drafts


def _judge(model: CausalLM, found: Findings, what: str) -> None:
    if found.drafts <= found.limit:  # False for NaN too
        return
    raise ModelError(
        f"{model.name}: {model.config.model_type} gives other logits with explicit masks and "
        f"positions than alone: {what} is off by {found.drafts:.2g} standard deviations where "
        f"rounding makes {found.rounding:.2g} and a wrong mask {found.fault:.2g}. Decoding would "
        "be silently wrong. This family is not supported; --no-probe decodes it all the same."
    )


@torch.inference_mode()
def examine(model: CausalLM, num_tokens: int = _TOKENS) -> Findings:
    """Measure a model's rounding, what faults do to it, and what drafts do.

    Args:
        model: The model.
        num_tokens: Length of the longer row; the context limits it.

    Raises:
        ModelError: The plain forward's logits are not finite, or the model cannot run with explicit
            positions, masks and cache.
    """
    longest = min(num_tokens, model.context_tokens - 1)
    group = max(1, min(_GROUP, longest // 4))
    lengths = [longest, max(longest - 9, 2 * group + 1)]
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return torch.randint(model.vocab_tokens, (count,), generator=generator).tolist()

    rows, wrong = [draw(length) for length in lengths], draw(2 * group)
    plain = torch.stack([_plain(model, row, 2 * group) for row in rows])
    if not plain.isfinite().all():
        raise ModelError(
            f"{model.name}: gives logits that are not finite numbers, as {model.dtype}. Its "
            "weights are broken, or need another --dtype."
        )

    def distance(found: Iterable[Tensor]) -> float:
        """Returns the largest distance of [rows, 2 * group, V] logits from the plain ones."""
        return max((_distance(plain, one, model.dtype) for one in found), default=0.0)

    rounding = distance(_equal_forwards(model, rows, 2 * group))
    try:
        drafts = _Drafts(model, rows, wrong)
        found = distance([drafts.logits()])
        fault = min(distance([logits]) for logits in drafts.faulty())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a family makes of arguments that it does not expect
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{model.name}: {model.config.model_type} cannot run with explicit positions, masks "
            f"and cache, which decoding needs: {reason}. This family is not supported."
        ) from error
    return Findings(max(rounding, torch.finfo(model.dtype).eps), fault, found)


def _distance(plain: Tensor, found: Tensor, dtype: torch.dtype) -> float:
    """Returns how far [rows, places, V] logits are apart, by the worse half of the places."""
    if not found.isfinite().all():
        return float("nan")
    places = (plain - found.float()).square().mean(-1).sqrt() / plain.std(-1)
    if dtype == torch.float32:
        return float(places.max())
    halves = places.tensor_split(2, dim=1)  # chain and branch
    return max(float(half.median()) for half in halves)


def _plain(model: CausalLM, row: list[int], num_outputs: int) -> Tensor:
    """Returns the logits [num_outputs, V] of the last tokens in the model's own plain forward."""
    ids = torch.tensor([row], device=model.device)
    return model.logits(input_ids=ids, use_cache=False, num_outputs=num_outputs)[0].float()


def _equal_forwards(model: CausalLM, rows: list[list[int]], num_outputs: int) -> Iterable[Tensor]:
    """Yields [rows, num_outputs, V] logits that equal the plain ones but for rounding.

    None of these forwards has a mask of ours. A family without a cache of its own has fewer.
    """

    def in_pieces(row: list[int], first: int) -> Tensor:
        cache = DynamicCache(config=model.config)
        pieces, logits = (row[:first], row[first:]), []
        for piece in pieces:
            ids = torch.tensor([piece], device=model.device)
            logits.append(
                model.logits(
                    input_ids=ids, past_key_values=cache, use_cache=True, num_outputs=len(piece)
                )[0]
            )
        return torch.cat(logits)[-num_outputs:].float()

    def in_a_batch(row: list[int]) -> Tensor:
        ids = torch.tensor([row] * 3, device=model.device)
        return model.logits(input_ids=ids, use_cache=False, num_outputs=num_outputs)[1].float()

    shortest = min(map(len, rows))
    ways = [lambda row, first=first: in_pieces(row, first) for first in {shortest // 2, 1}]
    for way in [in_a_batch, lambda row: in_pieces(row, len(row) - num_outputs), *ways[:1]]:
        try:
            yield torch.stack([way(row) for row in rows])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # as its drafts may do, which decide
            logger.debug("%s: no forward in pieces: %s", model.name, error)


class _Probed(RaggedForward):
    """A forward that can make a mistake on purpose."""

    fault: _Fault | None = None

    def run(
        self,
        first_row: int,
        ids: Tensor,
        positions: Tensor,
        visible: Tensor,
        key_positions: Tensor,
        num_outputs: int,
    ) -> Tensor:
        """Run as a RaggedForward does, after the fault has changed positions and visible slots."""
        if self.fault is not None:
            positions, visible = positions.clone(), visible.clone()
            key_positions = key_positions.repeat(len(ids) // len(key_positions), 1)
            self.fault(positions, visible, key_positions)
        return super().run(first_row, ids, positions, visible, key_positions, num_outputs)


class _Drafts:
    """Rows in a cache whose last tokens are run as drafts, again and again.

    Of the 2 G last tokens the first G are a chain that overwrites a wrong draft, and the last G a
    branch next to a wrong trunk.

    Args:
        model: The model.
        rows: Token ids per row.
        wrong: 2 G ids.
    """

    def __init__(self, model: CausalLM, rows: list[list[int]], wrong: list[int]):
        self.group = group = len(wrong) // 2
        self.forward = _Probed(model, len(rows), max(map(len, rows)) + group + 1)
        self.forward.logits(0, [row[: -2 * group] + wrong for row in rows], 1)
        self.forward.lengths = self.lengths = [len(row) - 2 * group for row in rows]
        trunk = wrong[:group]
        self.inputs = [row[-2 * group : -group] + trunk + row[-group:] for row in rows]
        chain = list(range(group))
        branch = [2 * group + i for i in range(group)]
        self.branches = Branches(
            first=2 * group,
            positions=[group + i for i in range(group)],
            ways=[[*chain, *branch[: i + 1]] for i in range(group)],
        )

    def logits(self) -> Tensor:
        """Returns the logits [rows, 2 G, V] of chain and branch."""
        width = len(self.inputs[0])
        branches = [self.branches] * len(self.inputs)
        logits = self.forward.logits(0, self.inputs, width, branches).float()
        return torch.cat([logits[:, : self.group], logits[:, -self.group :]], dim=1)

    def faulty(self) -> Iterable[Tensor]:
        """Yields the same with one deliberate fault each."""

        def off_by_one(positions: Tensor, visible: Tensor, keys: Tensor) -> None:
            positions += 1
            for row, start in enumerate(self.lengths):
                keys[row, start:] += 1

        def wrong_token_seen(positions: Tensor, visible: Tensor, keys: Tensor) -> None:
            for row, start in enumerate(self.lengths):
                visible[row, :, start + self.group] = True  # the trunk's first

        def right_token_hidden(positions: Tensor, visible: Tensor, keys: Tensor) -> None:
            for row, start in enumerate(self.lengths):
                visible[row, :, max(start - 4, 0)] = False

        for self.forward.fault in (off_by_one, wrong_token_seen, right_token_hidden):
            yield self.logits()
        self.forward.fault = None
        for row, start in enumerate(self.lengths):
            if start > 1:
                self.forward.cache.move_slots(row, [start - 2], start - 1)  # a stale slot
        yield self.logits()


def make_twin(model: CausalLM) -> CausalLM | None:
    """Make a small random model of the same family and attention, in float32; None if it fails.

    Its windows are narrow, so that a short text fills them.
    """
    try:
        config = small(model.network.config)
        for name in _window_settings(config):
            setattr(config, name, min(getattr(config, name), _TWIN_WINDOW))
        config.vocab_size = min(config.vocab_size, _TWIN_VOCABULARY)
        config.pad_token_id = config.bos_token_id = config.eos_token_id = None
        config._attn_implementation = "eager"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = type(model.network)._from_config(config, dtype=torch.float32)
        usual = model.network.config._attn_implementation
        if network._can_set_attn_implementation():
            network.set_attn_implementation(usual)
        network = network.to(model.device).eval()
    except Exception as error:  # families differ in what their configurations must agree on
        logger.debug("%s: no small twin: %s", model.name, error)
        return None
    return CausalLM(model.name, network, None, frozenset([0]), 0)


def _window(model: CausalLM) -> int:
    """Returns the widest attention window of any kind, in tokens."""
    config = model.config
    return max([24, *(getattr(config, name) for name in _window_settings(config))])


def _window_settings(config: PretrainedConfig) -> list[str]:
    """List the settings that are attention windows, under whatever name the family has for them."""
    settings = config.to_dict()
    if settings.get("use_sliding_window") is False:
        settings.pop("sliding_window", None)
    return [
        name
        for name, value in settings.items()
        if ("window" in name or "chunk" in name)
        and "layers" not in name
        and "pattern" not in name
        and type(value) is int
    ]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def probe_once(model: CausalLM) -> None:
    """Probe a model, unless the same weights passed on this machine in the same dtype and kernels.

    Raises:
        ModelError: As `probe`.
    """
    _remembered(model, "probe", lambda: {"drafts": probe(model)})


def find_shapes_once(model: CausalLM) -> Shapes:
    """Do `exact.find_shapes`, or return what it found for the same model on this machine.

    Raises:
        ModelError: As `find_shapes`.
    """
    found = _remembered(model, "exact", lambda: find_shapes(model)._asdict())
    return Shapes(tuple(found["rows"]), tuple(found["tokens"]))


def _remembered(model: CausalLM, check: str, run: Callable[[], dict]) -> dict:
    """Returns a check's result, from `~/.cache/jacobi-forcing/checks` (or XDG's) where it is."""
    place = user_cache() / "checks" / f"{check}-{_identity(model)}.json"
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = run()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.replace(place)
    except OSError as error:  # a home that cannot be written to
        logger.debug("%s: the result of this check is not kept: %s", place, error)
    return found


def _identity(model: CausalLM) -> str:
    """Returns a hash of all that a probe's result depends on: this package's models/ included."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    parts = [
        model.weights_fingerprint(),
        model.config.to_json_string(use_diff=False),
        model.network.config._attn_implementation,
        str(model.dtype),
        model.device.type,
        torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else cpu_name(),
        str(torch.get_num_threads()),
        *(f"{name} {version}" for name, version in sorted(versions().items())),
        *(source.read_text(encoding="utf-8") for source in sources),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
