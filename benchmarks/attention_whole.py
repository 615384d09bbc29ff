"""What attention without copied keys saves in whole: of a forward, and of a training step.

    python benchmarks/attention_whole.py

The same network, attending in turns as transformers' `sdpa` does and by groups of heads. A forward
of a draft is the loop's, over its cache; a training step is that of `benchmarks/train_step.py`,
whose tiles attend one way or the other.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from common import save
from train_step import OBJECTIVES, Step, make_network, seconds
from transformers import AttentionInterface

from jacobi_forcing.models import attention as ours
from jacobi_forcing.models import load_model, make_forward
from jacobi_forcing.models.loading import BUNDLED

Ways = tuple[Callable[[], None], Callable[[], None]]  # theirs, ours


def in_turns(ways: Ways, args: argparse.Namespace) -> dict[str, float]:
    """Give the time of ours, as a part of theirs: median and quartiles over the turns."""
    parts = []
    for turn in range(args.turns + 3):
        theirs, grouped = (seconds(way, args.device)[0] for way in ways)
        if turn >= 3:
            parts.append(grouped / theirs)
    low, middle, high = statistics.quantiles(parts, n=4)
    return {"part": middle, "low": low, "high": high}


def forwards(name: str, width: int, context: int, args: argparse.Namespace) -> Ways:
    """Make forwards of `width` tokens behind a text, one per way to attend."""
    model = load_model(name, device=args.device, dtype=args.dtype)
    forward = make_forward(model, 1, context + width)
    ids = torch.randint(model.vocab_tokens, (context + width,)).tolist()
    forward.logits(0, [ids[:context]], 1)

    def run(how: str) -> None:
        with ours.attention(model.network, how):
            for _ in range(args.repeats):
                forward.lengths[0] = context
                forward.logits(0, [ids[context:]], width)

    return partial(run, "sdpa"), partial(run, ours.GROUPED)


def training_steps(name: str, objective: str, args: argparse.Namespace) -> Ways:
    """Make steps of one trainer, one per way that its tiles attend."""
    step = Step(objective, make_network(name, args.device, args.dtype), args, args.out)
    step()

    def copying() -> None:
        with mock.patch.object(ours, "grouped_attention", AttentionInterface()["sdpa"]):
            step()

    return copying, step


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 250, 450])
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=20, help="forwards in a turn")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="attention_whole")
    args = parser.parse_args()
    args.gradient_checkpointing, args.beside = False, next(iter(OBJECTIVES))
    torch.set_num_threads(args.threads)
    rows = []

    def add(what: str, ways: Ways) -> None:
        rows.append({"what": what, **in_turns(ways, args)})
        print(rows[-1], flush=True)

    for context in args.contexts:
        what = f"a forward of {args.width} tokens behind {context}"
        add(what, forwards(args.model, args.width, context, args))
    path = str(BUNDLED.get(args.model, args.model))
    with tempfile.TemporaryDirectory() as args.out:
        for objective in OBJECTIVES:
            add(f"a training step, {objective}", training_steps(path, objective, args))
    save(args.name, rows, **{key: getattr(args, key) for key in ("model", "device", "dtype")})


if __name__ == "__main__":
    main()
