"""What drawing a token costs on a CPU at a real vocabulary's size: all noise, or what can win.

    python benchmarks/noise.py

Random logits with a few likely tokens, as a language model's have; one thread. The last line
printed is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from common import save
from torch import Tensor

from jacobi_forcing.decoding.gumbel import draw, gumbel
from jacobi_forcing.decoding.sampling import truncated

SEED = 7


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--positions", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--name", default="noise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(args.positions, args.vocabulary, generator=generator)
    logits[:, :50] += 12
    positions = torch.arange(args.positions)

    def drawn(temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
        scores = logits / temperature
        return draw(truncated(scores, top_k, top_p, 0.0), SEED, positions)

    ways: dict[str, Callable[[], Tensor]] = {
        "all noise, added": lambda: (logits + gumbel(SEED, positions, args.vocabulary)).argmax(-1),
        "temperature 1": lambda: drawn(1.0),
        "temperature 0.7": lambda: drawn(0.7),
        "temperature 1, top-k 50": lambda: drawn(1.0, top_k=50),
        "temperature 1, top-p 0.95": lambda: drawn(1.0, top_p=0.95),
        "sorting the vocabulary": lambda: logits.sort(descending=True).indices,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(args.repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:  # the first is the warm-up
                seconds[name].append(time.perf_counter() - start)
    whole = statistics.median(seconds["all noise, added"])
    rows = []
    for name, found in seconds.items():
        low, median, high = statistics.quantiles(found, n=4)
        row = {"way": name, "times_all_noise": median / whole, "milliseconds": 1000 * median}
        rows.append(row | {"milliseconds_low": 1000 * low, "milliseconds_high": 1000 * high})
    save(args.name, rows, vocabulary=args.vocabulary, positions=args.positions)
    print(json.dumps({row["way"]: round(row["times_all_noise"], 3) for row in rows}))


if __name__ == "__main__":
    main()
