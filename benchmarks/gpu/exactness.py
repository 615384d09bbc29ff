"""Where Jacobi decoding leaves AR in bfloat16, and how near the tie was there.

In float32 the two are the same ids. In bfloat16 a forward over more tokens may sum in another
order and flip a near tie; this reports how often, where first, and how near the tie was.
"""

import torch
from setup import device, parse_args, random_model, save

from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.models import CausalLM, load_model


@torch.inference_mode()
def top_gap(model: CausalLM, ids: list[int]) -> float:
    """Give the gap between the best and second-best logit after `ids`, by one plain forward."""
    logits = model.network(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1].float()
    best = logits.topk(2).values
    return float(best[0] - best[1])


def main() -> None:
    """Compare and save."""
    args = parse_args(__doc__.splitlines()[0])
    on = device(args.smoke)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        models = [random_model("smoke" if args.smoke else "0.5B", on, dtype)]
        for name in ("tiny-base", "tiny-forced"):
            models.append(load_model(name, device=on, dtype=str(dtype).removeprefix("torch.")))
        for model in models:
            generator = torch.Generator().manual_seed(1)
            count, length = (2, 24) if args.smoke else (16, 128)
            prompts = torch.randint(2, model.vocab_tokens, (count, 24), generator=generator)
            for prompt in prompts.tolist():
                plain = answer(model, prompt, strategy="autoregressive", max_new_tokens=length)
                for strategy in ("jacobi", "window"):
                    fast = answer(model, prompt, strategy=strategy, max_new_tokens=length)
                    pairs = enumerate(zip(plain.ids, fast.ids, strict=False))
                    at = next((i for i, (a, b) in pairs if a != b), None)
                    gap = None if at is None else top_gap(model, prompt + plain.ids[:at])
                    row = {"model": model.name, "dtype": str(dtype), "strategy": strategy}
                    rows.append(row | {"first_difference": at, "logit_gap": gap})
    differing = [row for row in rows if row["first_difference"] is not None]
    print(f"{len(differing)} of {len(rows)} decodes differ")
    save(args, rows)


if __name__ == "__main__":
    main()
