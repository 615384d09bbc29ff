"""What finding the likeliest token costs on a CPU: PyTorch's argmax, or numpy's, which decodes.

    python benchmarks/likeliest.py

Random logits, one thread, both in turns. The last line printed is one JSON object.
"""

import json
import statistics
import time

import torch
from common import save

from jacobi_forcing.decoding.gumbel import likeliest

SHAPES = ((1, 512), (16, 512), (1, 151_936), (16, 151_936))  # places x vocabulary
REPEATS = 30


def main() -> None:
    """Time, print and save."""
    torch.set_num_threads(1)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHAPES:
            logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
            assert torch.equal(likeliest(logits), logits.argmax(-1))
            found: dict[str, list[float]] = {"torch": [], "numpy": []}
            for _ in range(REPEATS):
                for name, way in (("torch", lambda x: x.argmax(-1)), ("numpy", likeliest)):
                    start = time.perf_counter()
                    way(logits)
                    found[name].append(1e6 * (time.perf_counter() - start))
            ratios = [a / b for a, b in zip(found["torch"], found["numpy"], strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4)
            row = {"dtype": str(dtype).removeprefix("torch."), "shape": shape}
            row |= {name: statistics.median(times) for name, times in found.items()}
            rows.append(row | {"times_faster": median, "low": low, "high": high})
            print(rows[-1])
    save("likeliest", rows)
    print(json.dumps({f"{r['dtype']} {r['shape']}": round(r["times_faster"], 1) for r in rows}))


if __name__ == "__main__":
    main()
