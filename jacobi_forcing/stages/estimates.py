"""What a recipe's stages take on GPUs: memory, and time from FLOPs and published throughputs.

None of these runs was made here. Every throughput is somebody's measurement, named where it
stands; answers are taken to be as long as `max_new_tokens` allows, and no step to settle more than
an unforced model's does. Times of the same model from other tools may differ by half.

Shapes: S = tokens of a training sequence, B = sequences per optimizer step.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from jacobi_forcing.config import CollectConfig, EvaluateConfig, PackConfig, TrainConfig
from jacobi_forcing.config.hardware import GPUS, USABLE_RATIO, Gpu
from jacobi_forcing.models.shrink import Architecture, empty_network
from jacobi_forcing.training.adapters import add_adapters, bare
from jacobi_forcing.training.memory import Estimate, checkpoint_bytes, estimate

_MIB = 2**20


class Shape(NamedTuple):
    """What FLOPs follow from."""

    body: int  # weights that multiply every token, the head's left out
    head: int  # the LM head's
    layers: int
    width: int  # of attention: query heads x head dimension
    trained: int  # weights that are trained

    def forward(self, tokens: int, pairs: int) -> float:
        """FLOPs of a forward up to the head, over tokens and pairs of query and key."""
        return 2 * self.body * tokens + 4 * self.layers * self.width * pairs


# Training as fast as others report it: Llama 3.1 8B on 8 H100 with FSDP in bfloat16, no compiling
# (pytorch/torchtitan, docs/performance.md: 33 % of the peak).
FAST_TRAINING_RATIO = 0.33
# And as slow: a third party's run of the method's reference code, Qwen2.5-Coder-7B on H200s, each
# with one sequence at a time: 10,000 steps of 4 sequences in 3 h 56 min; the rows of its data have
# a median of 682 tokens.
_REPORTED = Shape(body=6_525_000_000, head=152064 * 3584, layers=28, width=3584, trained=1)
_REPORTED_SECONDS = (3 * 3600 + 56 * 60) / 10_000
_REPORTED_SEQUENCES, _REPORTED_TOKENS = 4, 682
# An eager forward of few tokens costs what Python and the launches cost: AR of a 7B model of 28
# layers in transformers on an H100 makes 51.1 tokens per second (SqueezeBits' report on Jacobi
# Forcing), the same for all widths up to some hundred tokens.
LAYER_SECONDS = 1 / 51.1 / 28
# Many tokens: 128 rows of 8 take a 7B model 46.5 ms on an H200 under vLLM (notes of
# shaoxiongduan/verl), as a share of the peak.
DECODING_RATIO = 2 * 7.6e9 * 128 * 8 / 46.5e-3 / GPUS["H200"].flops
# Of a model that has not been forced (arXiv:2512.14681, Table 1, HumanEval).
TOKENS_PER_FORWARD = 1.03
# On one core: the slowest of benchmarks/results/pack_speed.json is above.
PACKED_TOKENS_PER_SECOND = 200_000
_TEST_BATCH = 32  # prompts that the trainer's test decodes together


@dataclass(frozen=True)
class Work:
    """One round, in full size."""

    collect: CollectConfig
    pack: PackConfig
    train: TrainConfig
    evaluate: EvaluateConfig | None
    num_trainings: int  # members


class RoundEstimate(NamedTuple):
    """What one round takes."""

    memory: Estimate  # of the process that needs most, in training, at `longest_tokens`
    memory_allowed: Estimate  # the same at `allowed_tokens`
    longest_tokens: int  # of the longest sequence that the known prompts make
    allowed_tokens: int  # of the longest one that packing allows
    checkpoint_bytes: int  # on disk
    parts: dict[str, int]  # parameters: all, trained
    gpu_bytes: int  # what a GPU has for it
    num_prompts: int  # that are collected
    steps: int
    rows: int  # B
    sequence_tokens: int  # S, on the average
    seconds: dict[str, tuple[float, float]]  # of each stage: fast and slow

    @property
    def fits(self) -> bool:
        """Whether training fits into a GPU."""
        return self.memory.total <= self.gpu_bytes


def estimate_round(
    work: Work,
    found: Architecture,
    count: int,
    prompt_tokens: int,
    longest_prompt_tokens: int,
    gpu: str,
    gpus: int,
) -> RoundEstimate:
    """Estimate one round.

    Args:
        work: Its settings.
        found: Of the model it begins with.
        count: Prompts that the source has; 0 for as many as the training visits.
        prompt_tokens: Of a prompt, on the average.
        longest_prompt_tokens: Of the longest prompt that is known; 0 where none is.
        gpu: Its name in `config.hardware`.
        gpus: How many share the work.
    """
    train, device = work.train, GPUS[gpu]
    dtype = torch.float32 if train.dtype == "auto" else getattr(torch, train.dtype)
    network: nn.Module = empty_network(found.config, dtype)
    if train.lora_rank:
        with torch.device("meta"):
            network = add_adapters(network, train)
    shape = shape_of(network)
    allowed = longest = longest_tokens(work)
    if longest_prompt_tokens and work.pack.sequence_prompts == 1:
        longest = min(longest, _packed_tokens(work, longest_prompt_tokens))
    length = min(longest, _packed_tokens(work, prompt_tokens))
    rows = train.batch_size * train.gradient_accumulation
    num_prompts, steps = _amounts(work, count, rows)
    # Collecting is divided by shards: with fewer of them than GPUs, some have nothing to do.
    num_collecting = min(gpus, max(1, -(-num_prompts // work.collect.shard_prompts)))
    seconds = {
        "collect": _twice(
            num_prompts
            * _seconds_per_prompt(work.collect, shape, device, prompt_tokens)
            / num_collecting
        ),
        "pack": _twice(
            num_prompts * work.pack.copies * length / (PACKED_TOKENS_PER_SECOND * work.pack.workers)
        ),
        "train": tuple(
            work.num_trainings
            * (
                steps * step_flops(train, shape, rows, length) / (gpus * device.flops * ratio)
                + _test_seconds(train, shape, device, steps)
            )
            for ratio in (FAST_TRAINING_RATIO, slow_training_ratio())
        ),
    }
    if work.evaluate is not None:
        seconds["evaluate"] = _twice(_evaluation_seconds(work.evaluate, shape))
    total = sum(p.numel() for p in network.parameters())
    return RoundEstimate(
        memory=estimate(network, train, longest, gpus),
        memory_allowed=estimate(network, train, allowed, gpus),
        longest_tokens=longest,
        allowed_tokens=allowed,
        checkpoint_bytes=checkpoint_bytes(network),
        parts={"all": total, "trained": shape.trained},
        gpu_bytes=int(device.memory_mib * _MIB * USABLE_RATIO),
        num_prompts=num_prompts,
        steps=steps,
        rows=rows,
        sequence_tokens=length,
        seconds=seconds,
    )


def shape_of(network: nn.Module) -> Shape:
    """Count what multiplies tokens; of experts all are counted, as if all worked."""
    config = network.config.get_text_config()
    head = bare(network).get_output_embeddings()
    ends = {id(p) for p in bare(network).get_input_embeddings().parameters()}
    ends |= {id(p) for p in head.parameters()}
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    parameters = list(network.parameters())
    return Shape(
        body=sum(p.numel() for p in parameters if p.ndim > 1 and id(p) not in ends),
        head=sum(p.numel() for p in head.parameters()),
        layers=config.num_hidden_layers,
        width=heads * head_dim,
        trained=sum(p.numel() for p in parameters if p.requires_grad),
    )


def step_flops(config: TrainConfig, shape: Shape, rows: int, length: int) -> float:
    """FLOPs of an optimizer step; attention is dense, as the masks are.

    A backward pass costs two forwards, or one where only adapters are trained, whose own part is
    left out; checkpointed layers run once more. Drafts made online cost a forward for each
    iteration on the average, a frozen teacher one. At most half of a sequence is clean and learns
    from the text, and half is noisy and learns from a teacher.
    """
    tokens, pairs = rows * length, rows * length**2
    back = 1 if config.lora_rank else 2
    forwards = 1 + back + config.gradient_checkpointing
    if config.states == "online":
        forwards += config.online_iterations / 2
    forwards += "frozen" in (config.teacher, config.ar_teacher)
    of_head = 2 * shape.head * tokens * ((1 + back) + 0.5)
    return forwards * shape.forward(tokens, pairs) + of_head


def slow_training_ratio() -> float:
    """The share of the peak that the slow report comes to, by our count of FLOPs."""
    config = TrainConfig(model="-", packed="-", out="-", gradient_checkpointing=True)
    flops = step_flops(config, _REPORTED, _REPORTED_SEQUENCES, _REPORTED_TOKENS)
    return flops / (_REPORTED_SECONDS * _REPORTED_SEQUENCES * GPUS["H200"].flops)


def _twice(seconds: float) -> tuple[float, float]:
    return seconds, seconds


def _packed_tokens(work: Work, prompt_tokens: int) -> int:
    """Tokens of a training sequence whose answer is as long as allowed."""
    size, train = work.collect.block_size, work.train
    answer = -(-work.collect.max_new_tokens // size) * size
    if train.states == "recorded":
        return prompt_tokens + 2 * answer
    return prompt_tokens + answer + _draft_tokens(work, answer)


def longest_tokens(work: Work) -> int:
    """Tokens of the longest sequence that a step may hold, the drafts made for it included."""
    most = work.pack.max_length
    if work.train.states == "recorded":
        return most
    # Packed beside its noisy blocks, an answer fills half of a sequence at most. Of several short
    # ones each may have one draft more than its share, which is left out.
    answer = most // 2
    return max(most, answer + _draft_tokens(work, answer))


def _draft_tokens(work: Work, answer: int) -> int:
    """Tokens of the drafts that training makes of so many tokens of answers."""
    size, train = work.collect.block_size, work.train
    drafts = -(-answer * train.drafts_per_block // size)
    return drafts * (train.consistency_reach or size)


def _amounts(work: Work, count: int, rows: int) -> tuple[int, int]:
    """How many prompts are collected, and how many optimizer steps are made.

    Of a source that is not here, as many as the training visits once.
    """
    if work.train.max_steps:
        steps = work.train.max_steps
        return count or math.ceil(steps * rows / work.pack.copies), steps
    return count, math.ceil(count * work.pack.copies * work.train.epochs / rows)


def _forward_seconds(shape: Shape, gpu: Gpu, tokens: int) -> float:
    """One eager forward over so many tokens of all rows together."""
    flops = 2 * (shape.body + shape.head) * tokens
    return max(LAYER_SECONDS * shape.layers, flops / (gpu.flops * DECODING_RATIO))


def _seconds_per_prompt(config: CollectConfig, shape: Shape, gpu: Gpu, prompt: int) -> float:
    """Of one prompt, its share of the batch's forwards; the prefill among them."""
    is_block = config.record == "states"
    width, settled = (config.block_size, TOKENS_PER_FORWARD) if is_block else (1, 1.0)
    forward = _forward_seconds(shape, gpu, config.batch_size * width)
    prefill = _forward_seconds(shape, gpu, config.batch_size * prompt)
    return (config.max_new_tokens / settled * forward + prefill) / config.batch_size


def _test_seconds(config: TrainConfig, shape: Shape, gpu: Gpu, steps: int) -> float:
    """All of the trainer's own decoder tests, which one process makes."""
    num_prompts = int(config.eval_prompts.split(":")[-1])
    forward = _forward_seconds(shape, gpu, _TEST_BATCH * (config.eval_block_size or 16))
    num_tests = 2 + (steps // config.eval_steps if config.eval_steps else 0)
    batches = -(-num_prompts // _TEST_BATCH)
    return num_tests * batches * config.eval_max_new_tokens * forward


def _evaluation_seconds(config: EvaluateConfig, shape: Shape) -> float:
    """One prompt at a time, with AR and with the strategy."""
    num = config.limit or config.num_texts or 1000
    return 2 * num * config.max_new_tokens * LAYER_SECONDS * shape.layers
