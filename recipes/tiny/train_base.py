"""Train `tiny-base` from scratch: its tokenizer, then a small Qwen2 on the bundled problems.

    python recipes/tiny/train_base.py --out runs/tiny-base

Every example is new (the generator is endless), rows are packed to a fixed length with attention
kept inside each problem, and a run that was stopped continues from its last checkpoint.
"""

import argparse
import itertools
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import IterableDataset
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from jacobi_forcing import problems
from jacobi_forcing.data.files import write_json
from jacobi_forcing.data.record import commit, hardware, versions
from jacobi_forcing.models.saving import save_network, save_tokenizer

EOS, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(vocab_size: int, num_problems: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which every digit stays a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = (p.prompt + p.answer for p in itertools.islice(problems.stream(), num_problems))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, model_max_length=1024
    )


class PackedProblems(IterableDataset):
    """Endless rows of `row_tokens` tokens, each holding as many whole problems as fit."""

    def __init__(self, tokenizer, row_tokens: int, prompt_weight: float, seed: int):
        self.tokenizer = tokenizer
        self.row_tokens = row_tokens
        self.prompt_weight = prompt_weight
        self.seed = seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        row: list[tuple[list[int], int]] = []
        for problem in problems.stream(seed=self.seed):
            prompt = self.tokenizer.encode(problem.prompt)
            answer = [*self.tokenizer.encode(problem.answer), self.tokenizer.eos_token_id]
            if sum(len(ids) for ids, _ in row) + len(prompt) + len(answer) > self.row_tokens:
                yield self.pack(row)
                row = []
            row.append((prompt + answer, len(prompt)))

    def pack(self, row: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
        """Lay problems behind each other, each with its own positions."""
        ids, positions, documents, weights = [], [], [], []
        for number, (tokens, prompt_length) in enumerate(row):
            ids += tokens
            positions += range(len(tokens))
            documents += [number] * len(tokens)
            # weights[i] belongs to the prediction of token i; nothing predicts a first token.
            weights += [0.0] + [self.prompt_weight] * (prompt_length - 1)
            weights += [1.0] * (len(tokens) - prompt_length)
        num_pad = self.row_tokens - len(ids)
        return {
            "input_ids": torch.tensor(ids + [self.tokenizer.pad_token_id] * num_pad),
            "position_ids": torch.tensor(positions + [0] * num_pad),
            "documents": torch.tensor(documents + [-1] * num_pad),
            "weights": torch.tensor(weights + [0.0] * num_pad),
        }


class BaseTrainer(Trainer):
    """Weighted next-token cross-entropy with attention inside each packed problem only."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        """Average over tokens, prompts at their own weight."""
        documents = inputs["documents"]
        visible = (documents[:, :, None] == documents[:, None, :]).tril()[:, None]
        mask = torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
        logits = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            attention_mask=mask,
            use_cache=False,
        ).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            inputs["input_ids"][:, 1:].flatten(),
            reduction="none",
        )
        weights = inputs["weights"][:, 1:].flatten()
        loss = (losses * weights).sum() / weights.sum()
        return (loss, logits) if return_outputs else loss


def parse_args() -> argparse.Namespace:
    """Read the settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=768)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--num-layers", type=int, default=4)
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-steps", type=int, default=5000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--prompt-weight", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="autocast; pays on CPUs with AMX")
    return parser.parse_args()


def main() -> None:
    """Train the tokenizer, then the model; continue where a stopped run was."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    set_seed(args.seed)
    final = args.out / "final"
    if (args.out / "tokenizer" / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out / "tokenizer")
    else:
        tokenizer = train_tokenizer(args.vocab_size, num_problems=30_000)
        save_tokenizer(tokenizer, args.out / "tokenizer")
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=args.vocab_size,
            hidden_size=args.hidden_size,
            num_hidden_layers=args.num_layers,
            intermediate_size=int(args.hidden_size * 2.75),
            num_attention_heads=args.hidden_size // 32,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    print(f"{model.num_parameters():,} parameters")
    last = get_last_checkpoint(str(args.out))
    # A run that continues deals itself new problems instead of skipping through the old ones.
    done = int(Path(last).name.split("-")[-1]) if last else 0
    trainer = BaseTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.out),
            max_steps=max(args.max_steps, done),
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.02},
            warmup_steps=200,
            weight_decay=0.05,
            adam_beta2=0.98,
            logging_steps=50,
            save_steps=500,
            save_total_limit=2,
            dataloader_num_workers=1,
            use_cpu=not torch.cuda.is_available(),
            use_cache=True,  # Trainer writes this into the model's configuration
            bf16=args.bf16,
            torch_compile=True,
            report_to=[],
            remove_unused_columns=False,
            ignore_data_skip=True,
            seed=args.seed,
        ),
        train_dataset=PackedProblems(
            tokenizer, args.row_tokens, args.prompt_weight, args.seed + done
        ),
    )
    trainer.train(resume_from_checkpoint=last)
    save_network(model, final)
    save_tokenizer(tokenizer, final)
    write_json(
        final / "run.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "commit": commit(),
            "versions": versions(),
            "hardware": hardware(),
            "num_parameters": model.num_parameters(),
            "log": trainer.state.log_history,
        },
    )
    print(f"saved {final}")


if __name__ == "__main__":
    main()
