"""A stand-in for a model: how its choices fall behind wrong guesses, learned from one wide decode.

Which decoder needs how many forwards could be found by running them all. But a strategy only sees
token ids, so it can be run against anything that answers as the model would. Where every guess is
right the answer is known: the model's own text. Behind a wrong one it is drawn, from what the model
was seen to say there:

    place      0    1    2    3    4    5
    guesses         9   41   12    8    7      the text is 9 41 3 12 8 ...
    right?          +    +    -    -    -
    choice     =    =    =    ?    ?    ?      right, right but shifted (8 for 12), or neither

What decides it, among what a draft tells: how many wrong guesses stand before, whether the guess at
the choice's own place is right, and what the choice before it was; not how wide the draft is. So
one table serves a wide draft, whose far places have been refined while they came nearer, and a
narrow one, whose places enter as noise right behind the text: cutting the wide draft's acceptance
off at the narrow width would take the second for the first (a quarter too much at width 3).
Shifted words are what recycling lives off, so a pool finds in an imitated state what it would find
in a real one.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.draft import ROOT, Draft, settle
from jacobi_forcing.decoding.events import Forward
from jacobi_forcing.decoding.strategies import Strategy, make_strategy

_MOST_SHIFT = 8  # places by which a word may be early or late and still be known as right
_ENOUGH = 20  # times that a situation was seen, for its own frequencies to be used

Kind = int | None  # of a choice: 0 right, else by how many places it is shifted; None is neither
Situation = tuple  # what is known of a place, from most to nothing

_SHIFTS = sorted((s for s in range(-_MOST_SHIFT, _MOST_SHIFT + 1) if s), key=abs)


class Text(NamedTuple):
    """A prompt and the model's own answer to it."""

    prompt: Sequence[int]
    answer: Sequence[int]


class Step(NamedTuple):
    """One forward of a request."""

    num_tokens: int  # fed behind what is in the cache: the prompt or the newest token, the draft
    context_tokens: int  # in the cache before
    num_settled: int


class Imitation:
    """What a model says behind wrong guesses, as frequencies.

    Args:
        counts: Situation -> how often which outcome followed: "right", "shifted", "same" (shifted
            as the choice before), "other".
        shifts: How often a shift began with so many places.
    """

    def __init__(self, counts: dict[Situation, Counter], shifts: Counter):
        self.counts = counts
        self.shifts = (list(shifts), list(shifts.values()))
        self._known: dict[Situation, tuple[list, list]] = {}

    def draw(self, rng: random.Random, num_wrong: int, is_right: bool, before: Kind) -> Kind:
        """Draw a choice behind `num_wrong` >= 1 wrong guesses.

        Args:
            rng: Drawn with.
            num_wrong: Wrong guesses on the way to the choice.
            is_right: Whether the guess that it replaces is right.
            before: The choice for the place before.
        """
        outcomes = self._outcomes(num_wrong, is_right, before)
        if outcomes is None:
            return None
        found = rng.choices(*outcomes)[0]
        if found == "right":
            return 0
        if found == "same":
            return before
        return rng.choices(*self.shifts)[0] if found == "shifted" else None

    def _outcomes(self, *place) -> tuple[list, list] | None:
        """Give the outcomes and their weights where a situation was seen often enough."""
        first = _situations(*place)[0]
        if first not in self._known:
            for situation in _situations(*place):
                found = self.counts.get(situation)
                if found and (found.total() >= _ENOUGH or situation == ()):
                    self._known[first] = (list(found), list(found.values()))
                    break
        return self._known.get(first)


def _situations(num_wrong: int, is_right: bool, before: Kind) -> list[Situation]:
    """Describe a place ever more coarsely."""
    # 1, 2, 3, 4, 5..8, 9..16, ...: behind many wrong guesses one more changes little.
    many = num_wrong if num_wrong <= 4 else 2 + (num_wrong - 1).bit_length()
    was = "right" if before == 0 else "other" if before is None else "shifted"
    return [(many, is_right, was), (is_right, was), ()]


def _kind(token: int, place: int, answer: Sequence[int], before: Kind) -> Kind:
    """Say what a token is for a place of the answer: a run of shifted words has one shift."""
    likely = [0, before] if before else [0]
    for shift in [*likely, *_SHIFTS]:
        if 0 <= place + shift < len(answer) and answer[place + shift] == token:
            return shift
    return None


def imitate(decodes: Iterable[tuple[Sequence[Forward], Sequence[int]]]) -> Imitation:
    """Learn from decodes without branches.

    Args:
        decodes: Per request its forwards and its answer.
    """
    counts: dict[Situation, Counter] = defaultdict(Counter)
    shifts: Counter = Counter()
    for forwards, answer in decodes:
        for forward in forwards:
            _learn(forward, answer, counts, shifts)
    return Imitation(dict(counts), shifts)


def _learn(
    forward: Forward, answer: Sequence[int], counts: dict[Situation, Counter], shifts: Counter
) -> None:
    """Count what followed in one forward; what lies behind the answer's end is not known."""
    choices = forward.accepted + forward.tail
    num_wrong, before = 0, 0
    places = range(forward.offset, len(answer))
    for place, guess, choice in zip(places, forward.guesses, choices, strict=False):
        is_right = guess == answer[place]
        kind = _kind(choice, place, answer, before)
        if num_wrong:
            outcome = "right" if kind == 0 else "other"
            if kind:
                outcome = "same" if kind == before else "shifted"
                shifts[kind] += outcome == "shifted"
            for situation in _situations(num_wrong, is_right, before):
                counts[situation][outcome] += 1
        num_wrong += not is_right
        before = kind


def acceptance(forwards: Iterable[Forward], num_places: int) -> list[float]:
    """Give for each place of a draft the share of drafts in which it and all before were right."""
    reached, right = [0] * num_places, [0] * num_places
    for forward in forwards:
        for place in range(min(len(forward.guesses), num_places)):
            reached[place] += 1
            right[place] += len(forward.path) > place
    return [a / b for a, b in zip(right, reached, strict=True) if b]


def replay(
    imitation: Imitation,
    text: Text,
    strategy: Strategy,
    rng: random.Random,
    most_tokens: int,
) -> list[Step]:
    """Run a strategy against the imitation until the answer is whole.

    Args:
        imitation: Says what the model would.
        text: The prompt, and the answer that comes out.
        strategy: Any; with pools too.
        rng: What is not known is drawn with it.
        most_tokens: Longest answer that was asked for.
    """
    ids, steps = list(text.prompt), []
    pending, offset = len(ids), 0
    while offset < len(text.answer):
        draft = strategy.propose(ids, offset, most_tokens - offset - 1)
        settled = settle(draft, _choices(imitation, draft, text.answer, offset, rng))
        strategy.observe(settled.tokens, settled.tail)
        accepted = settled.tokens[: len(text.answer) - offset]
        context = len(ids) - pending
        steps.append(Step(pending + len(draft.tokens), context, len(accepted)))
        ids += accepted
        offset += len(accepted)
        pending = 1
    return steps


def _choices(
    imitation: Imitation, draft: Draft, answer: Sequence[int], offset: int, rng: random.Random
) -> list[int]:
    """Say what the model chooses behind the committed text and behind every node of a draft."""
    choices, wrong, kinds = [answer[offset]], {ROOT: 0}, {ROOT: 0}
    nodes = zip(draft.tokens, draft.parents, draft.depths(), strict=True)
    for node, (token, parent, depth) in enumerate(nodes):
        place = offset + depth  # of the node; its choice is for the next one
        is_right = place < len(answer) and token == answer[place]
        wrong[node] = wrong[parent] + (not is_right)
        kind = 0
        if wrong[node] and place + 1 < len(answer):
            following = node + 1
            replaced = following < draft.num_trunk and draft.tokens[following] == answer[place + 1]
            kind = imitation.draw(rng, wrong[node], replaced, kinds[parent])
        kinds[node] = kind
        found = place + 1 + (kind or 0)
        is_known = kind is not None and 0 <= found < len(answer)
        # No token of the text: one that nothing else equals.
        choices.append(answer[found] if is_known else -1 - rng.getrandbits(40))
    return choices


def predict_steps(
    imitation: Imitation,
    texts: Sequence[Text],
    decoder: DecoderConfig,
    *,
    vocab_tokens: int,
    most_tokens: int,
    seed: int = 0,
) -> list[list[Step]]:
    """Give the forwards that a decoder would need for every text."""
    return [
        replay(
            imitation,
            text,
            make_strategy(decoder, vocab_tokens, f"{seed}/{number}"),
            random.Random(f"{seed}/{number}"),
            most_tokens,
        )
        for number, text in enumerate(texts)
    ]


def tokens_per_forward(requests: Iterable[Iterable[Step]]) -> float:
    """Settled tokens per forward of all requests."""
    steps = [step for request in requests for step in request]
    return sum(step.num_settled for step in steps) / len(steps)
