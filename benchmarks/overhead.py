"""How much of a decoding step is the decoder's own work, and not the model's forward.

    python benchmarks/overhead.py --model tiny-forced

The model's forward is timed in the same steps, where it is called. On a GPU it ends when its work
is queued and the rest of the step waits for it: there, look at decode_speed.py instead. The last
line printed is one JSON object.
"""

import argparse
import json
import statistics
import time

import torch
from common import save
from multiblock import benchmark_prompts

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.models import CausalLM, load_model

DECODERS = {
    "autoregressive": DecoderConfig(strategy="autoregressive"),
    "window": DecoderConfig(strategy="window", pool_size=0),
    "window, recycling": DecoderConfig(strategy="window"),
    "multiblock": DecoderConfig(strategy="multiblock", pool_size=0),
}


class ForwardClock:
    """Adds up the seconds that calls of a network take."""

    def __init__(self, model: CausalLM):
        self.seconds = 0.0
        self.count = 0
        clock = self

        # Hooks would time less than the call, and make it longer.
        class Timed(type(model.network)):
            def __call__(self, *args, **kwargs):
                start = time.perf_counter()
                result = super().__call__(*args, **kwargs)
                clock.seconds += time.perf_counter() - start
                clock.count += 1
                return result

        model.network.__class__ = Timed


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="overhead")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    prompts = benchmark_prompts(model, args.prompts)
    limit = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
    clock = ForwardClock(model)
    rows = []
    for size in args.batch_sizes:
        some = prompts if size > 1 else prompts[:8]
        shares: dict[str, list[float]] = {name: [] for name in DECODERS}
        steps: dict[str, float] = {}
        for repeat in range(args.repeats + 1):
            for name, decoder in DECODERS.items():
                clock.seconds, clock.count = 0.0, 0
                start = time.perf_counter()
                decode_all(model, some, decoder, max_new_tokens=limit, batch_size=size)
                seconds = time.perf_counter() - start
                if repeat:  # the first is the warm-up
                    shares[name].append(1 - clock.seconds / seconds)
                    steps[name] = seconds / clock.count
        for name in DECODERS:
            low, median, high = statistics.quantiles(shares[name], n=4)
            row = {"decoder": name, "batch_size": size, "share": median}
            row |= {"share_low": low, "share_high": high, "milliseconds": 1000 * steps[name]}
            rows.append(row)
            print(f"batch {size:3}  {name:16} {median:6.1%} of {1000 * steps[name]:.2f} ms a step")
    save(args.name, rows, model=args.model, num_prompts=len(prompts))
    print(json.dumps({f"{r['decoder']} x {r['batch_size']}": round(r["share"], 4) for r in rows}))


if __name__ == "__main__":
    main()
