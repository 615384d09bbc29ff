"""How long a forward takes over tokens per forward, batch and context: which tokens are free."""

import torch
from setup import device, parse_args, random_model, save, seconds

from jacobi_forcing.models import RaggedForward


def main() -> None:
    """Time and save."""
    args = parse_args(__doc__.splitlines()[0])
    on = device(args.smoke)
    dtype = torch.float32 if on == "cpu" else torch.bfloat16
    sizes = ["smoke"] if args.smoke else ["0.5B", "7B"]
    widths = (1, 16) if args.smoke else (1, 2, 4, 8, 16, 32, 64, 128, 256)
    grid = [(1, 64)] if args.smoke else [(1, 512), (8, 512), (32, 512), (1, 4096)]
    rows = []
    for size in sizes:
        model = random_model(size, on, dtype)
        for batch, context in grid:
            forward = RaggedForward(model, batch, context + max(widths))
            prompt = torch.randint(2, 500, (context,)).tolist()
            forward.logits(0, [prompt] * batch, 1)
            forward.lengths = [context] * batch
            for width in widths:
                ids = [prompt[:width]] * batch

                def step(ids=ids, width=width, forward=forward, batch=batch):
                    forward.logits(0, ids, width).argmax(-1).tolist()

                timing = seconds(step, on, repeats=4 if args.smoke else 20)
                row = {"model": size, "batch": batch, "context": context, "width": width, **timing}
                rows.append(row)
                print(row)
        del model
    save(args, rows, dtype=str(dtype))


if __name__ == "__main__":
    main()
