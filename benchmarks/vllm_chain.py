"""The chain that the vLLM plugin drafts, in our own loop: how many forwards it takes.

    python benchmarks/vllm_chain.py

Beside `window` without recycling, which may draft with the prompt already; vLLM does not. Needs no
vLLM. The last line printed is one JSON object.
"""

import argparse
import json
from collections.abc import Callable

import torch
from common import save

from jacobi_forcing import problems
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import Finished, Request, decode, make_strategy
from jacobi_forcing.decoding.draft import Draft, chain
from jacobi_forcing.decoding.strategies import Strategy
from jacobi_forcing.integrations.vllm.drafter import Drafter
from jacobi_forcing.models import load_model


class Chain:
    """The plugin's drafter as a strategy of our loop."""

    max_branch_tokens = 0

    def __init__(self, drafter: Drafter, width: int):
        self.drafter = drafter
        self.width = width

    def propose(self, text: list[int], offset: int, limit: int) -> Draft:
        """Propose nothing with the prompt."""
        return chain(self.drafter.propose(text, min(self.width, limit)) if offset else [])

    def observe(self, accepted: list[int], tail: list[int]) -> None:
        """Pass it on."""
        self.drafter.observe(accepted, tail)


def main() -> None:
    """Count, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--problems", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--width", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    prompts = [
        model.tokenizer.encode(problem.prompt)
        for kind in problems.KINDS
        for problem in problems.held_out(kind, args.problems, args.seed)
    ]
    window = DecoderConfig(strategy="window", block_size=args.width + 1, pool_size=0)
    vocabulary = model.vocab_tokens
    ways: dict[str, Callable[[Request], Strategy]] = {
        "our window, no recycling": lambda r: make_strategy(window, vocabulary, r.index),
        "chain, noise at its end": lambda r: Chain(Drafter(vocabulary, 0, r.index), args.width),
        "chain, 4 old states at its end": lambda r: Chain(
            Drafter(vocabulary, 4, r.index), args.width
        ),
    }
    rows = []
    for name, make in ways.items():
        requests = [Request(index, prompt, 192) for index, prompt in enumerate(prompts)]
        events = decode(model, requests, make, batch_size=32)
        done = [event for event in events if isinstance(event, Finished)]
        num_forwards = sum(event.num_forwards for event in done)
        num_tokens = sum(len(event.answer_ids) for event in done)
        rows.append({"way": name, "num_forwards": num_forwards, "num_tokens": num_tokens})
        print(rows[-1])
    assert len({row["num_tokens"] for row in rows}) == 1, "answers differ"
    save("vllm_chain", rows, model=args.model, num_prompts=len(prompts), width=args.width)
    print(json.dumps({row["way"]: row["num_forwards"] for row in rows}))


if __name__ == "__main__":
    main()
