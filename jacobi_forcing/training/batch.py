"""Batches of packed sequences, padded to their longest."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from jacobi_forcing.data.packed import Document, Packed, num_tokens
from jacobi_forcing.training.layout import (
    CLEAN,
    IGNORED,
    PADDING,
    PROMPT,
    Layout,
    ar_targets,
    join,
    make_layout,
    teacher_index,
)


class PackedDataset(Dataset):
    """Packed sequences as the trainer's data set."""

    def __init__(self, sequences: Sequence[Packed]):
        self.sequences = sequences
        self.lengths = [num_tokens(sequence) for sequence in sequences]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Packed:
        return self.sequences[index]


class LengthSampler(Sampler):
    """Deals sequences of similar lengths together, so that little is padding.

    The order follows from the seed and the epoch alone: a run that was stopped in its third epoch
    goes on in the order of the third.

    Args:
        lengths: Tokens of every sequence.
        batch_size: Sequences per optimizer step.
        seed: Of the order.
        epoch: Tells which epoch begins; asked for, because not every loader passes it on to here.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], int]
    ):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class Collator:
    """Makes the tensors of a batch, [B, S] long, S being the longest sequence.

    `prompt_index` alone is [documents of all sequences] long.

    Args:
        block_size: n of the packed data.
        pad_id: Fills input_ids behind shorter sequences; nothing ever sees it.
        ar_on_prompt: See TrainConfig.
        consistency_from: See TrainConfig.
        consistency_reach: See TrainConfig.
    """

    def __init__(
        self,
        block_size: int,
        pad_id: int,
        *,
        ar_on_prompt: bool,
        consistency_from: str,
        consistency_reach: int = 0,
    ):
        self.block_size = block_size
        self.pad_id = pad_id
        self.ar_on_prompt = ar_on_prompt
        self.from_start = consistency_from == "start"
        self.reach = consistency_reach

    def __call__(self, sequences: Sequence[Packed]) -> dict[str, Tensor]:
        """Collate sequences."""
        columns: dict[str, list[Tensor]] = {}
        for sequence in sequences:
            for name, values in self.tensors(sequence).items():
                columns.setdefault(name, []).append(values)
        batch = {name: self.pad(name, tensors) for name, tensors in columns.items()}
        batch["prompt_index"] = torch.tensor([d.prompt_index for s in sequences for d in s])
        return batch

    def pad(self, name: str, tensors: list[Tensor]) -> Tensor:
        """Stack a column's [S] tensors, filled up behind the shorter ones."""
        fill = {"input_ids": self.pad_id, "document": -1, "stream": PADDING}
        fill |= {"block": -1, "start": 0}
        fill |= {"position_ids": 0, "ar_targets": IGNORED, "teacher_index": -1}
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill[name])

    def tensors(self, sequence: Packed) -> dict[str, Tensor]:
        """Make the [S] tensors of one sequence."""
        return join([self.document(document) for document in sequence])

    def document(self, document: Document) -> dict[str, Tensor]:
        """Make the [S] tensors of one document."""
        ids = torch.tensor(document.input_ids, dtype=torch.long)
        layout = make_layout(document.prompt_length, len(document.noise_ratios), self.block_size)
        length = document.answer_length
        return columns_of(layout) | {
            "input_ids": ids,
            "ar_targets": ar_targets(ids, layout, length, on_prompt=self.ar_on_prompt),
            "teacher_index": teacher_index(
                ids,
                layout,
                self.block_size,
                length,
                from_start=self.from_start,
                reach=self.reach,
            ),
        }


def layout_of(batch: dict[str, Tensor]) -> Layout:
    """Undo `columns_of`: give the [B, S] layout of a batch."""
    return Layout(
        document=batch["document"],
        stream=batch["stream"],
        block=batch["block"],
        position=batch["position_ids"],
        start=batch["start"],
    )


def columns_of(layout: Layout) -> dict[str, Tensor]:
    """Name a layout's fields as a batch does, one of them as models call it."""
    columns = layout._asdict()
    columns["position_ids"] = columns.pop("position")
    return columns


def clean_part(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the columns behind every row's last clean token: teachers need no more.

    No clean token sees a noisy one, so nothing changes for those that stay.
    """
    clean = (batch["stream"] == PROMPT) | (batch["stream"] == CLEAN)
    end = int(clean.any(0).nonzero().max()) + 1
    return {name: values[:, :end] if values.ndim == 2 else values for name, values in batch.items()}
