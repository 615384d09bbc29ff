"""Which architectures decode exactly: every causal LM of the installed transformers, tried.

    python benchmarks/architectures.py

Each is built small with random weights and decoded with and without blocks, branches and ragged
batches; its ids must be those of its own `generate`.
"""

import argparse
import multiprocessing
import random
import resource
import warnings
from queue import Empty

import torch
from common import save
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.errors import ModelError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.causal_lm import refuse_by_config, refuse_unsupported
from jacobi_forcing.models.probe import probe

_VOCAB = 64
# Tried where a configuration has a setting of that name. Small, and with windows that matter.
_SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 256),
    **dict.fromkeys(("sliding_window", "window_size"), 12),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    "is_decoder": True,  # else families that are encoders by default see what is to come
    "vocab_size": _VOCAB,
    "vocab_size_per_layer_input": _VOCAB,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "bos_token_id": None,
    "tie_word_embeddings": False,
}
_OF_FAMILY = {
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    **{name: {"bos_token_id": 2} for name in ("cwm", "modernbert-decoder")},
    # These do without what their own configuration leaves out.
    **{name: {"head_dim": 8} for name in ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 4, "laurel_rank": 4},
    **{name: {"global_head_dim": 8} for name in ("gemma4_text", "gemma4_unified_text")},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
}
_DECODERS = (
    DecoderConfig(strategy="window", block_size=6),
    DecoderConfig(strategy="jacobi", block_size=9),
    DecoderConfig(strategy="multiblock", block_size=5, spawn_ratio=0.0, pool_size=3, pool="both"),
)


def small_network(family: str):
    """Build a small random network of a family."""
    default = AutoConfig.for_model(family)
    default.allow_global_per_layer_attribute_access = True  # Gemma 4 has several head sizes
    names = {name: value for name, value in _SMALL.items() if hasattr(default, name)}
    if hasattr(default, "kv_lora_rank"):
        names["num_key_value_heads"] = 4  # of a latent all heads are made
    # Of an optional setting that is off, off is part of the family.
    off = [n for n in ("q_lora_rank", "sliding_window", "head_dim") if n in names]
    for name in off:
        if getattr(default, name) is None or isinstance(getattr(type(default), name, 0), property):
            del names[name]
    names |= _OF_FAMILY.get(family, {})
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **names))
    size = sum(p.numel() for p in network.parameters())
    if size > 30_000_000:
        raise ValueError(f"{size / 1e6:.0f} million parameters when made small")
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **names)).float().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)  # as initialised, most would repeat one token
    return network


def tried(family: str) -> tuple[str, str]:
    """Say what became of a family: exact, refused, wrong, or not tried; and why."""
    try:
        refuse_by_config(family, AutoConfig.for_model(family))
    except ModelError as error:
        return "refused", str(error)
    except Exception as error:
        return "not tried", f"has no configuration: {_short(error)}"
    try:
        network = small_network(family)
    except Exception as error:
        return "not tried", f"cannot be built small: {_short(error)}"
    model = CausalLM(family, network, None, frozenset({0}), 1)
    rng = random.Random(0)
    vocab = model.vocab_tokens
    prompts = [[rng.randrange(2, vocab) for _ in range(n)] for n in (3, 17, 30, 8)]
    try:
        right = [_generated(network, prompt) for prompt in prompts]
    except Exception as error:
        return "not tried", f"its own generate fails: {_short(error)}"
    try:
        refuse_unsupported(family, network)
        probe(model)
    except ModelError as error:
        return "refused", str(error)
    try:
        for decoder in _DECODERS:
            found = decode_all(model, prompts, decoder, max_new_tokens=32, batch_size=3)
            if found.answers != right:
                return "wrong", f"other ids with {decoder.strategy}"
    except Exception as error:
        return "failing", _short(error)
    return "exact", f"{len({t for ids in right for t in ids})} different tokens"


@torch.inference_mode()
def _generated(network, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "max_new_tokens": 32, "eos_token_id": 0, "pad_token_id": 1}
    return network.generate(ids, attention_mask=torch.ones_like(ids), **options)[
        0, len(prompt) :
    ].tolist()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:140]}"


def _child(family: str, queue) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    torch.set_num_threads(1)
    queue.put(tried(family))


def main() -> None:
    """Try every family in a process of its own, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="*", default=sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    parser.add_argument("--seconds", type=float, default=60, help="most time for a family")
    parser.add_argument("--name", default="architectures")
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")  # transformers is imported once
    rows = []
    for family in args.families:
        queue = context.Queue()
        process = context.Process(target=_child, args=(family, queue), daemon=True)
        process.start()
        try:
            outcome, reason = queue.get(timeout=args.seconds)
        except Empty:
            outcome, reason = "not tried", f"did not end within {args.seconds:.0f} seconds"
        process.kill()
        rows.append({"family": family, "outcome": outcome, "reason": reason})
        print(f"{family:28s} {outcome:10s} {reason}", flush=True)
    save(args.name, rows)


if __name__ == "__main__":
    main()
