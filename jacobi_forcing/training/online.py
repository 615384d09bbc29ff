"""Drafts made while training, by the model as it is by then: nothing that is recorded can go stale.

The paper trains on states that were recorded before training, and records again for a second
round because the model has moved on since. Here every visit to a sequence starts drafts at random
places of the answer, fills them with noise and lets the model itself iterate on them a few times.
These are the states its decoder goes through, and no two visits see the same ones.

    ids        [prompt][answer][draft 0][draft 1] ...
    positions   0..P-1  P..     p0..     p1..

A draft sees the clean text before its place and itself: what decoding shows it. (So this is
`clean-context`. What a noisy block repeats of the clean one, its settled part, needs no tokens,
and neither does what lies too far behind to learn: every token of a draft may teach something.)

Shapes: B = sequences, S = tokens of the longest, T = drafts of the batch, m = tokens per draft.
"""

import random
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from jacobi_forcing.data.packed import Packed
from jacobi_forcing.training.batch import Collator
from jacobi_forcing.training.layout import CLEAN, NOISY, PROMPT, Layout, ar_targets, deinterleave


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

    def __call__(self, sequences: list[Packed]) -> dict[str, Tensor]:
        """Collate sequences; what is noisy in them is not used."""
        batch = super().__call__(sequences)
        batch["prompt_length"] = torch.tensor([s.prompt_length for s in sequences])
        batch["answer_length"] = torch.tensor([s.answer_length for s in sequences])
        return batch

    def tensors(self, packed: Packed) -> dict[str, Tensor]:
        """Make the [S] tensors of one sequence: its clean text, and empty drafts."""
        prompt, _, clean = deinterleave(packed.input_ids, packed.prompt_length, self.block_size)
        answer = [token for block in clean for token in block][: packed.answer_length]
        text = torch.tensor(prompt + answer)
        num_drafts = -(-len(answer) * self.drafts_per_block // self.block_size)
        draft = torch.arange(num_drafts).repeat_interleave(self.draft_tokens)
        stream = torch.tensor([PROMPT] * len(prompt) + [CLEAN] * len(answer))
        is_clean = (stream == CLEAN).long()
        layout = Layout(
            stream=torch.cat([stream, torch.full_like(draft, NOISY)]),
            block=torch.cat([is_clean - 1, draft]),
            position=torch.cat([torch.arange(len(text)), torch.zeros_like(draft)]),
            start=torch.cat([is_clean * len(prompt), torch.zeros_like(draft)]),
        )
        ids = torch.cat([text, torch.full_like(draft, self.pad_id)])
        return {
            "input_ids": ids,
            "position_ids": layout.position,
            "stream": layout.stream,
            "block": layout.block,
            "start": layout.start,
            "ar_targets": ar_targets(ids, layout, len(answer), on_prompt=self.ar_on_prompt),
            "teacher_index": torch.full_like(ids, -1),
        }


@dataclass(frozen=True)
class OnlineDrafts:
    """Fills the drafts of a batch.

    With the step, the seed decides every draw: a run that was stopped goes on with the same drafts.
    """

    draft_tokens: int  # m
    max_iterations: int  # a step's drafts are iterated on 0 to this many times, drawn per step
    _: KW_ONLY
    noise: str  # `text`, the row's own text before the draft, or `vocabulary`
    vocab_tokens: int  # ids 0 .. vocab_tokens - 1 are real
    pad_id: int  # stands behind the end of an answer
    from_start: bool  # see TrainConfig.consistency_from
    seed: int | str

    def generator(self, step: int, process: int = 0) -> torch.Generator:
        """Make the source of all draws of one optimizer step in one process."""
        seed = random.Random(f"{self.seed}/{step}/{process}").getrandbits(63)
        return torch.Generator().manual_seed(seed)

    def fill(
        self,
        batch: dict[str, Tensor],
        predict: Callable[[dict[str, Tensor]], Tensor],
        generator: torch.Generator,
        common: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Give the batch with drafts in their places, their states, and who learns from whom.

        Args:
            batch: As `DraftCollator` makes it.
            predict: From a batch to the [B, S] ids the model chooses behind each token.
            generator: Of this step.
            common: Draws the number of iterations where several processes are to draw the same.
        """
        drafts = Drafts(batch, self.draft_tokens, self.pad_id)
        drafts.place(self._starts(drafts, generator))
        state = self._noise(drafts, generator)
        common = generator if common is None else common
        for _ in range(int(torch.randint(self.max_iterations + 1, (), generator=common))):
            choices = predict(drafts.batch(state)).flatten()[drafts.index]
            state = next_state(state, choices, drafts.right)
        filled = drafts.batch(state)
        return filled | {"teacher_index": drafts.teacher_index(state, from_start=self.from_start)}

    def _starts(self, drafts: "Drafts", generator: torch.Generator) -> Tensor:
        """Spread a sequence's drafts over its answer, each at a random place of its own stretch.

        Returns:
            [T] long, answer tokens before the draft; one at least is left to predict behind it.
        """
        part = torch.rand(len(drafts.row), generator=generator).to(drafts.row.device)
        number = drafts.number
        count = torch.zeros_like(drafts.answer_length).scatter_reduce(
            0, drafts.row, number + 1, "amax"
        )[drafts.row]
        last = (drafts.answer_length[drafts.row] - 1).clamp(min=1)
        return ((number + part) / count * last).long().clamp(max=last - 1)

    def _noise(self, drafts: "Drafts", generator: torch.Generator) -> Tensor:
        """Draw [T, m] ids."""
        shape, device = drafts.index.shape, drafts.index.device
        if self.noise == "vocabulary":
            return torch.randint(self.vocab_tokens, shape, generator=generator).to(device)
        part = torch.rand(shape, generator=generator).to(device)
        place = (part * drafts.position[:, :1]).long()  # the text before a draft: 0 .. start - 1
        return drafts.text(place)


class Drafts:
    """The drafts of a batch, by their places in it.

    Attributes:
        row: [T] long, the sequence a draft belongs to.
        number: [T] long, which of its sequence's drafts it is.
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
        self.number = batch["block"].flatten()[self.index[:, 0]]
        self.answer_length = batch["answer_length"]

    def place(self, starts: Tensor) -> None:
        """Let draft i start behind starts[i] answer tokens."""
        prompt_length = self._batch["prompt_length"][self.row][:, None]
        end = prompt_length + self.answer_length[self.row][:, None]
        offset = torch.arange(self.index.shape[1], device=starts.device)
        behind = prompt_length + starts[:, None] + offset
        # Behind the end nothing is learned; no position may leave the context for it.
        self.position = torch.minimum(behind, end - 1)
        self.right = torch.where(behind < end, self.text(self.position), self.pad_id)
        self.predicts = behind + 1 < end

    def text(self, position: Tensor) -> Tensor:
        """Look up [T, m] positions in each draft's own clean text, which lies from column 0 on."""
        return self._batch["input_ids"].flatten()[self.row[:, None] * self.length + position]

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
        index[self.index[learns]] = self.position[learns]  # the clean token there
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
