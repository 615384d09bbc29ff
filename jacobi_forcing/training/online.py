"""Drafts made while training, by the model as it is by then: nothing that is recorded can go stale.

The paper trains on states that were recorded before training, and records again for a second
round because the model has moved on since. Here every visit to a sequence starts drafts at random
places of the answer, fills them with noise and lets the model itself iterate on them a few times.
These are the states its decoder goes through, and no two visits see the same ones.

    ids        [prompt][answer][draft 0][draft 1] ...
    positions   0..P-1  P..     p0..     p1..

Where a sequence holds several documents, all their texts come first and then all their drafts, so
that a teacher of the clean texts can stop there (batch.clean_part).

A draft sees the clean text before its place and itself: what decoding shows it. (So this is
`clean-context`. What a noisy block repeats of the clean one, its settled part, needs no tokens,
and neither does what lies too far behind to learn: every token of a draft may teach something.)

Shapes: B = sequences, S = tokens of the longest, D = documents of the longest, T = drafts of the
batch, m = tokens per draft.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from jacobi_forcing.data.packed import Document, Packed
from jacobi_forcing.training.batch import Collator, columns_of
from jacobi_forcing.training.layout import (
    CLEAN,
    IGNORED,
    NOISY,
    PROMPT,
    Layout,
    ar_targets,
    join,
)


class DraftCollator(Collator):
    """Makes batches with room for drafts, which `OnlineDrafts` fills before they are used.

    Args:
        draft_tokens: m.
        drafts_per_block: Drafts for every `block_size` tokens of the answer.
        **options: As for `Collator`.
    """

    def __init__(self, *args, draft_tokens: int, drafts_per_block: int, **options):
        super().__init__(*args, **options)
        self.draft_tokens = draft_tokens
        self.drafts_per_block = drafts_per_block

    def __call__(self, sequences: Sequence[Packed]) -> dict[str, Tensor]:
        """Collate sequences; what is noisy in them is not used.

        Added to a batch are tables of its documents, [B, D] long, 0 behind shorter ones:
        `prompt_length`, `answer_length`, and `text_start`, the column of a document's first token.
        """
        batch = super().__call__(sequences)
        tables: dict[str, list[Tensor]] = {}
        for sequence in sequences:
            prompt_length = torch.tensor([document.prompt_length for document in sequence])
            answer_length = torch.tensor([document.answer_length for document in sequence])
            length = prompt_length + answer_length
            tables.setdefault("prompt_length", []).append(prompt_length)
            tables.setdefault("answer_length", []).append(answer_length)
            tables.setdefault("text_start", []).append(length.cumsum(0) - length)
        return batch | {
            name: torch.nn.utils.rnn.pad_sequence(columns, batch_first=True)
            for name, columns in tables.items()
        }

    def tensors(self, sequence: Packed) -> dict[str, Tensor]:
        """Make the [S] tensors of one sequence: its clean texts, and behind them empty drafts."""
        texts = join([self.text(document) for document in sequence])
        drafts = join([self.empty_drafts(document) for document in sequence])
        return {name: torch.cat([texts[name], drafts[name]]) for name in texts}

    def text(self, document: Document) -> dict[str, Tensor]:
        """Make the [P + A] tensors of a document's prompt and answer."""
        prompt_length, answer_length = document.prompt_length, document.answer_length
        ids = torch.tensor(document.input_ids, dtype=torch.long)
        clean = ids[prompt_length:].view(-1, 2, self.block_size)[:, 1].flatten()
        ids = torch.cat([ids[:prompt_length], clean[:answer_length]])
        position = torch.arange(len(ids))
        is_clean = (position >= prompt_length).long()
        layout = Layout(
            document=torch.zeros_like(ids),
            stream=torch.where(is_clean > 0, CLEAN, PROMPT),
            block=is_clean - 1,
            position=position,
            start=is_clean * prompt_length,
        )
        return columns_of(layout) | {
            "input_ids": ids,
            "ar_targets": ar_targets(ids, layout, answer_length, on_prompt=self.ar_on_prompt),
            "teacher_index": torch.full_like(ids, -1),
        }

    def empty_drafts(self, document: Document) -> dict[str, Tensor]:
        """Make the tensors of a document's drafts, one behind the other."""
        num_drafts = -(-document.answer_length * self.drafts_per_block // self.block_size)
        number = torch.arange(num_drafts).repeat_interleave(self.draft_tokens)
        layout = Layout(
            document=torch.zeros_like(number),
            stream=torch.full_like(number, NOISY),
            block=number,
            position=torch.zeros_like(number),
            start=torch.zeros_like(number),
        )
        return columns_of(layout) | {
            "input_ids": torch.full_like(number, self.pad_id),
            "ar_targets": torch.full_like(number, IGNORED),
            "teacher_index": torch.full_like(number, -1),
        }


@dataclass(frozen=True)
class OnlineDrafts:
    """Fills the drafts of a batch.

    The seed, the step and a sequence's place in the step decide every draw. So a run that was
    stopped goes on with the same drafts, and however a step is split, its sequences get the same.
    """

    draft_tokens: int  # m
    max_iterations: int  # a step's drafts are iterated on 0 to this many times, drawn per step
    _: KW_ONLY
    noise: str  # `text`, the row's own text before the draft, or `vocabulary`
    vocab_tokens: int  # ids 0 .. vocab_tokens - 1 are real
    pad_id: int  # stands behind the end of an answer
    from_start: bool  # see TrainConfig.consistency_from
    seed: int | str

    def iterations(self, step: int) -> int:
        """Draw how many iterations the drafts of an optimizer step get, in all processes."""
        return random.Random(f"{self.seed}/{step}").randint(0, self.max_iterations)

    def generator(self, step: int, place: int) -> torch.Generator:
        """Make the source of all draws for one sequence of an optimizer step.

        Args:
            step: Of the optimizer, from 0.
            place: The sequence's among all of the step, from 0.
        """
        seed = random.Random(f"{self.seed}/{step}/{place}").getrandbits(63)
        return torch.Generator().manual_seed(seed)

    def fill(
        self,
        batch: dict[str, Tensor],
        predict: Callable[[dict[str, Tensor]], Tensor],
        step: int,
        first_place: int = 0,
    ) -> dict[str, Tensor]:
        """Give the batch with drafts in their places, their states, and who learns from whom.

        Args:
            batch: As `DraftCollator` makes it.
            predict: From a batch to the [B, S] ids the model chooses behind each token.
            step: Of the optimizer, from 0.
            first_place: Of the batch's first sequence among all of the step; the others follow.
        """
        drafts = Drafts(batch, self.draft_tokens, self.pad_id)
        parts, noise = self._draws(drafts, step, first_place)
        drafts.place(self._starts(drafts, parts))
        state = self._noise(drafts, noise)
        for _ in range(self.iterations(step)):
            choices = predict(drafts.batch(state)).flatten()[drafts.index]
            state = next_state(state, choices, drafts.right)
        filled = drafts.batch(state)
        return filled | {"teacher_index": drafts.teacher_index(state, from_start=self.from_start)}

    def _draws(self, drafts: "Drafts", step: int, first_place: int) -> tuple[Tensor, Tensor]:
        """Draw from every sequence's own source.

        Returns:
            [T] float from 0 to 1, for the drafts' places; [T, m], for their noise: ids, or float
            from 0 to 1 where it is drawn from the text.
        """
        parts, noise = [], []
        for row, count in enumerate(drafts.counts()):
            generator = self.generator(step, first_place + row)
            shape = (count, self.draft_tokens)
            parts.append(torch.rand(count, generator=generator))
            if self.noise == "vocabulary":
                noise.append(torch.randint(self.vocab_tokens, shape, generator=generator))
            else:
                noise.append(torch.rand(shape, generator=generator))
        device = drafts.row.device
        return torch.cat(parts).to(device), torch.cat(noise).to(device)

    def _starts(self, drafts: "Drafts", parts: Tensor) -> Tensor:
        """Spread a document's drafts over its answer, each at a random place of its own stretch.

        Args:
            drafts: Of the batch.
            parts: [T] float, where in its stretch each is, from 0 to 1.

        Returns:
            [T] long, answer tokens before the draft; one at least is left to predict behind it.
        """
        last = (drafts.answer_length - 1).clamp(min=1)
        return ((drafts.number + parts) / drafts.siblings() * last).long().clamp(max=last - 1)

    def _noise(self, drafts: "Drafts", drawn: Tensor) -> Tensor:
        """Make [T, m] ids of what was drawn for them."""
        if self.noise == "vocabulary":
            return drawn
        place = (drawn * drafts.position[:, :1]).long()  # the text before a draft: 0 .. start - 1
        return drafts.text(place)


class Drafts:
    """The drafts of a batch, by their places in it.

    Attributes:
        row: [T] long, the sequence a draft belongs to.
        document: [T] long, which of its sequence's documents it belongs to.
        number: [T] long, which of its document's drafts it is.
        prompt_length: [T] long, of its document, as `answer_length` is.
        index: [T, m] long, its tokens' places in the flattened batch.
        position: [T, m] long, their position ids.
        right: [T, m] long, the fixed point there, pads behind its end.
    """

    def __init__(self, batch: dict[str, Tensor], draft_tokens: int, pad_id: int):
        self._batch = batch
        self.pad_id = pad_id
        self.length = batch["input_ids"].shape[1]
        self.index = (batch["stream"].flatten() == NOISY).nonzero()[:, 0].view(-1, draft_tokens)
        self.row = self.index[:, 0] // self.length
        self.document = batch["document"].flatten()[self.index[:, 0]]
        self.number = batch["block"].flatten()[self.index[:, 0]]
        self.prompt_length = batch["prompt_length"][self.row, self.document]
        self.answer_length = batch["answer_length"][self.row, self.document]
        # Of its document's text: the column it starts in, and its place in the flattened batch.
        self._column = batch["text_start"][self.row, self.document][:, None]
        self._text_start = self.row[:, None] * self.length + self._column

    def counts(self) -> list[int]:
        """Count the drafts of each of the batch's B sequences; their rows follow each other."""
        return self.row.bincount(minlength=len(self._batch["stream"])).tolist()

    def siblings(self) -> Tensor:
        """Count the drafts of each draft's document: [T] long."""
        shape = self._batch["answer_length"].shape
        group = self.row * shape[1] + self.document
        counts = torch.zeros(shape.numel(), dtype=torch.long, device=group.device)
        return counts.index_add(0, group, torch.ones_like(group))[group]

    def place(self, starts: Tensor) -> None:
        """Let draft i start behind starts[i] answer tokens."""
        end = (self.prompt_length + self.answer_length)[:, None]
        offset = torch.arange(self.index.shape[1], device=starts.device)
        behind = (self.prompt_length + starts)[:, None] + offset
        # Behind the end nothing is learned; no position may leave the context for it.
        self.position = torch.minimum(behind, end - 1)
        self.right = torch.where(behind < end, self.text(self.position), self.pad_id)
        self.predicts = behind + 1 < end

    def text(self, position: Tensor) -> Tensor:
        """Look up [T, m] positions in each draft's own clean text."""
        return self._batch["input_ids"].flatten()[self._text_start + position]

    def batch(self, state: Tensor) -> dict[str, Tensor]:
        """Give the batch with [T, m] states in its drafts."""

        def filled(name: str, values: Tensor) -> Tensor:
            column = self._batch[name].flatten().clone()
            column[self.index] = values
            return column.view_as(self._batch[name])

        return self._batch | {
            "input_ids": filled("input_ids", state),
            "position_ids": filled("position_ids", self.position),
            "start": filled("start", self.position[:, :1].expand_as(self.position)),
        }

    def teacher_index(self, state: Tensor, *, from_start: bool) -> Tensor:
        """As `layout.teacher_index`, for [T, m] states; [B, S]."""
        differs = (state != self.right).cumsum(1) > 0
        learns = differs[:, -1:].expand_as(differs) if from_start else differs
        learns = learns & self.predicts
        index = torch.full_like(self._batch["teacher_index"].flatten(), -1)
        index[self.index[learns]] = (self._column + self.position)[learns]  # the clean token there
        return index.view_as(self._batch["teacher_index"])


def next_state(state: Tensor, choices: Tensor, right: Tensor) -> Tensor:
    """Make one Jacobi iteration's result: every token the model's choice behind the one before.

    The tokens that decoding has settled by then, the right ones before the first wrong one and one
    more, are the fixed point's, whatever a model that has changed since would choose.

    Args:
        state: [T, m] long.
        choices: [T, m] long, the model's choice behind each token of `state`.
        right: [T, m] long, the fixed points.

    Returns:
        [T, m] long.
    """
    offset = torch.arange(state.shape[1], device=state.device)
    num_right = (state == right).long().cumprod(1).sum(1, keepdim=True)
    shifted = torch.cat([right[:, :1], choices[:, :-1]], dim=1)
    return torch.where(offset <= num_right, right, shifted)
