"""AR of this engine, compiled AR of transformers, and Jacobi decoding, on one model in one process.

The speed-up that counts is the one over the fastest AR in the table.
"""

import torch
from setup import device, parse_args, random_model, save, seconds

from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.models import CausalLM, load_model


def compiled_ar(model: CausalLM, prompt: list[int], length: int):
    """Make a step that generates with transformers' static cache and compiled forward."""
    ids = torch.tensor([prompt], device=model.device)

    def step():
        return model.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=length,
            max_new_tokens=length,
            cache_implementation="static",
            pad_token_id=model.pad_id,
        )

    return step


def main() -> None:
    """Time and save."""
    args = parse_args(__doc__.splitlines()[0])
    on = device(args.smoke)
    dtype = torch.float32 if on == "cpu" else torch.bfloat16
    length = 16 if args.smoke else 128
    models = [random_model("smoke" if args.smoke else "0.5B", on, dtype)]
    models += [load_model("tiny-forced", device=on, dtype=str(dtype).removeprefix("torch."))]
    rows = []
    for model in models:
        prompt = torch.randint(2, 500, (64,), generator=torch.Generator().manual_seed(0)).tolist()
        steps = {}
        for strategy in ("autoregressive", "jacobi", "window"):

            def step(strategy=strategy, model=model, prompt=prompt):
                return answer(model, prompt, strategy=strategy, max_new_tokens=length)

            steps[strategy] = step
        steps["transformers generate, static cache"] = compiled_ar(model, prompt, length)
        for name, step in steps.items():
            found = step()
            is_ours = hasattr(found, "tokens_per_forward")
            row = {
                "model": model.name,
                "decoder": name,
                "tokens_per_forward": found.tokens_per_forward if is_ours else 1.0,
                "num_tokens": len(found.ids) if is_ours else length,
                **seconds(step, on, repeats=3 if args.smoke else 7),
            }
            row["tokens_per_second"] = row["num_tokens"] / row["seconds"]
            rows.append(row)
            print(row)
    save(args, rows, dtype=str(dtype))


if __name__ == "__main__":
    main()
