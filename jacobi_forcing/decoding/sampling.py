"""From logits to choices: penalties, bans, truncation and noise, for every node of a draft.

Whatever is set, the choice behind a text is a function of that text, the settings and the seed. So
it is the same in every decoder, and the loop's test for equality is all that verification takes.

Order and meaning follow transformers' `generate`; presence and frequency penalties, which it lacks,
follow OpenAI's (answer tokens only). Shapes: N = nodes of the draft, V = vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from jacobi_forcing.config import SamplingConfig, check
from jacobi_forcing.decoding.draft import Draft
from jacobi_forcing.decoding.gumbel import as_long, draw, likeliest

# From the answer's ids so far to the ids allowed next; None allows all. Also asked about drafts,
# which may break its own rules: what it says of those never matters.
Constraint = Callable[[Sequence[int]], Sequence[int] | Tensor | None]
# transformers' LogitsProcessor: ([rows, length] ids, [rows, V] scores) to [rows, V] scores. What it
# makes of a row may depend on that row's ids only: rows are the nodes of one draft.
Processor = Callable[[Tensor, Tensor], Tensor]


_FEW = 1024  # tokens that hold all of a nucleus, but for flat distributions
LOGITS_AT_ONCE = 1 << 22  # logits of requests that are drawn together: 16 MiB
_COLDEST = 1e-6  # nothing but the likeliest token is drawn below; 1e-46 is 0 in float32
NOTHING = -1  # the choice where every token is forbidden; no draft holds it


class Law(NamedTuple):
    """How scores become probabilities; the fields are those of `SamplingConfig`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float


@dataclass(frozen=True, kw_only=True)
class Sampling(SamplingConfig):
    """How one request's tokens are chosen: what a command line can say, and what only code can.

    Fields:
        logit_bias: Added to the logits of these ids.
        bad_words: Id sequences that must not appear.
        constraint: Says which ids are allowed behind an answer (`integrations.grammar` makes some).
        processors: transformers' LogitsProcessors that look at their own row only.
        seed: Of the noise, 64 bits.
    """

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: Sequence[Sequence[int]] = ()
    constraint: Constraint | None = None
    processors: Sequence[Processor] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(all(len(ids) > 0 for ids in self.bad_words), "bad_words holds an empty sequence.")

    @property
    def is_plain(self) -> bool:
        """Whether a choice is the argmax of the model's own logits."""
        same = {"seed": self.seed, "top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        empty = {"bad_words": self.bad_words or (), "processors": self.processors or ()}
        return replace(self, **empty) == Sampling(**same)

    @property
    def law(self) -> Law:
        """How scores become probabilities."""
        return Law(self.temperature, self.top_k, self.top_p, self.min_p)


GREEDY = Sampling()


class Sampler:
    """What decides one request's tokens, beside the text."""

    def __init__(self, settings: Sampling, num_prompt: int, eos_ids: frozenset[int]):
        self.settings = settings
        self.num_prompt = num_prompt
        self.eos_ids = sorted(eos_ids)
        self.reads_text = not replace(settings, temperature=0.0).is_plain

    def scores(self, logits: Tensor, text: Sequence[int], draft: Draft) -> Tensor:
        """Apply what depends on the text.

        Args:
            logits: [N + 1, V], of the committed text and of each node; not changed.
            text: Prompt and committed ids.
            draft: N nodes.

        Returns:
            [N + 1, V] float.
        """
        if not self.reads_text:
            return logits.float()
        ways = [[], *(draft.way(n) for n in range(len(draft.tokens)))]
        ways = [[draft.tokens[node] for node in way] for way in ways]
        return self._processed(logits.float().clone(), text, ways)

    def _processed(self, scores: Tensor, text: Sequence[int], ways: list[list[int]]) -> Tensor:
        """Apply what depends on the text, to [N + 1, V] scores in place."""
        used = self.settings
        if used.repetition_penalty != 1:
            held = _counts(scores, text, ways) > 0
            scaled = torch.where(
                scores < 0, scores * used.repetition_penalty, scores / used.repetition_penalty
            )
            scores = torch.where(held, scaled, scores)
        if used.presence_penalty or used.frequency_penalty:
            counts = _counts(scores, text[self.num_prompt :], ways)
            scores -= used.presence_penalty * (counts > 0) + used.frequency_penalty * counts
        for token, bias in used.logit_bias.items():
            scores[:, token] += bias
        num_answer = len(text) - self.num_prompt
        for row, way in enumerate(ways):
            if num_answer + len(way) < used.min_new_tokens:
                scores[row, self.eos_ids] = -torch.inf
            if used.bad_words or used.constraint is not None:
                self._ban(scores[row], [*text, *way])
        if used.processors:
            _run(used.processors, scores, text, ways)
        return scores

    def _ban(self, scores: Tensor, text: list[int]) -> None:
        """Forbid bad words' last tokens, and what a constraint does not allow, in [V] scores."""
        for *start, last in self.settings.bad_words:
            if text[len(text) - len(start) :] == start:
                scores[last] = -torch.inf
        if self.settings.constraint is None:
            return
        allowed = self.settings.constraint(text[self.num_prompt :])
        if allowed is not None:
            mask = torch.ones_like(scores, dtype=torch.bool)
            if not isinstance(allowed, Tensor):
                allowed = torch.tensor(allowed, dtype=torch.long)
            mask[allowed.to(scores.device)] = False
            scores.masked_fill_(mask, -torch.inf)


class Asked(NamedTuple):
    """One request's part in a forward: what to choose behind."""

    sampler: Sampler
    logits: Tensor  # [N + 1, V], of the committed text and of each node; not changed
    text: Sequence[int]  # prompt and committed ids
    draft: Draft  # N nodes


def choose(every: Sequence[Asked]) -> list[Tensor]:
    """Choose behind every committed text and behind each node of its draft.

    Requests of one temperature and truncation are drawn together. All that is done to logits is
    done to each [V] by itself, and noise is a function of seed and position, so that a request's
    tokens do not depend on those beside it.

    Returns:
        Per request, [N + 1] long; NOTHING where every token is forbidden.
    """
    alike: dict[Law, list[int]] = {}
    for number, asked in enumerate(every):
        alike.setdefault(asked.sampler.settings.law, []).append(number)
    found = {}
    for law, numbers in alike.items():
        for some in _lots(every, numbers):
            ids = _draw([every[number] for number in some], law)
            found |= zip(some, ids.split([len(every[n].logits) for n in some]), strict=True)
    return [found[number] for number in range(len(every))]


def _lots(every: Sequence[Asked], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Part requests, so that not too many logits are copied at once; one is never parted."""
    lot, size = [], 0
    for number in numbers:
        more = every[number].logits.numel()
        if lot and size + more > LOGITS_AT_ONCE:
            yield lot
            lot, size = [], 0
        lot.append(number)
        size += more
    yield lot


def _draw(every: Sequence[Asked], law: Law) -> Tensor:
    """Choose for requests that share a law; [sum of N + 1] long, one behind the other."""
    scores = torch.cat([one.sampler.scores(*one[1:]) for one in every])
    seeds, positions = [], []
    for one in every:
        seeds += [as_long(one.sampler.settings.seed)] * len(one.logits)
        positions += [len(one.text), *(len(one.text) + d + 1 for d in one.draft.depths())]
    seeds, positions = torch.tensor(seeds), torch.tensor(positions)
    return draw_alike(scores, law, seeds, positions)


def draw_alike(scores: Tensor, law: Law, seeds: Tensor, positions: Tensor) -> Tensor:
    """Draw tokens of one temperature and truncation.

    Args:
        scores: [N, V] float, before the temperature.
        law: Of all of them; at temperature 0 the highest is taken.
        seeds: [N] long (`gumbel.as_long`).
        positions: [N] long, places of these tokens in the sequence.

    Returns:
        [N] long; NOTHING where every token is forbidden.
    """
    highest = scores.amax(-1, keepdim=True)
    nothing = highest[:, 0] == -torch.inf
    if law.temperature < _COLDEST:
        return likeliest(scores).masked_fill(nothing, NOTHING)
    # Off the highest first: else a tiny temperature would make several of them infinite.
    scores = truncated((scores - highest) / law.temperature, law.top_k, law.top_p, law.min_p)
    return draw(scores, seeds, positions).masked_fill(nothing, NOTHING)


def _counts(scores: Tensor, text: Sequence[int], ways: list[list[int]]) -> Tensor:
    """Count every id in text + way: [N + 1, V] float."""
    num_tokens = scores.shape[1]
    common = torch.bincount(torch.tensor(list(text), dtype=torch.long), minlength=num_tokens)
    counts = common.float().repeat(len(ways), 1)
    rows = [row for row, way in enumerate(ways) for _ in way]
    ids = [token for way in ways for token in way]
    counts.index_put_(
        (torch.tensor(rows, dtype=torch.long), torch.tensor(ids, dtype=torch.long)),
        torch.tensor(1.0),
        accumulate=True,
    )
    return counts.to(scores.device)


def _run(
    processors: Sequence[Processor], scores: Tensor, text: Sequence[int], ways: list[list[int]]
) -> None:
    """Run LogitsProcessors on texts of equal length together; changes `scores`."""
    for length in sorted({len(way) for way in ways}):
        rows = [row for row, way in enumerate(ways) if len(way) == length]
        ids = torch.tensor([[*text, *ways[row]] for row in rows], device=scores.device)
        found = scores[rows]
        for processor in processors:
            found = processor(ids, found)
        scores[rows] = found


def truncated(scores: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Set the logits of tokens that are not to be drawn to -inf.

    Args:
        scores: [N, V], divided by the temperature.
        top_k: 0 keeps all. Tokens as likely as the k-th are kept.
        top_p: The token that crosses the threshold is kept, and those as likely; so one is.
        min_p: 0 keeps all.

    Returns:
        [N, V].
    """
    if top_k:
        least = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        scores = scores.masked_fill(scores < _nucleus_edge(scores, top_p), -torch.inf)
    if min_p:
        probs = scores.softmax(-1)
        least = min_p * probs.amax(-1, keepdim=True)
        scores = scores.masked_fill(probs < least, -torch.inf)
    return scores


def _nucleus_edge(scores: Tensor, top_p: float) -> Tensor:
    """Give [N, 1], the least of the highest scores that hold `top_p` of the probability.

    Sorting a whole vocabulary takes longer than everything else here, and few tokens nearly always
    do. A row's edge depends on that row only, also where it takes more of them.
    """
    total = scores.logsumexp(-1, keepdim=True)
    if scores.is_cuda:  # to see whether few suffice would wait for the device
        return _edge(scores.sort(descending=True).values, total, top_p)[0]
    edge, wide = _edge(scores.topk(min(_FEW, scores.shape[1])).values, total, top_p)
    if scores.shape[1] > _FEW and wide.any():
        ordered = scores[wide].sort(descending=True).values
        edge[wide], _ = _edge(ordered, total[wide], top_p)
    return edge


def _edge(ordered: Tensor, total: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Give the edge [n, 1] among falling scores [n, K], and [n] whether it may lie behind them."""
    probs = (ordered - total).exp()
    inside = probs.cumsum(-1) - probs < top_p
    num_inside = inside.sum(-1, keepdim=True).clamp(min=1)  # 0 where every token is forbidden
    return ordered.gather(-1, num_inside - 1), inside[:, -1]
