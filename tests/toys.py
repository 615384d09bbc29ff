"""Random-weight models of real families and a toy tokenizer: small, seeded, offline."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.attention import group_heads
from jacobi_forcing.models.causal_lm import wrap

VOCAB = 64
EOS, PAD = 0, 1
_SHARED = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "tie_word_embeddings": False,  # tied random weights just repeat the last token
}
# The six families of the README, each with what makes it different switched on.
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 12},
    "gemma2": {"head_dim": 8, "sliding_window": 10, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 10, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "n_inner": 64},
}
# More families, each tried once; what their configurations call differently, small too.
_EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
_OF_FALCON = {"num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 64}
MORE_FAMILIES = {
    "bloom": {"n_head": 4, "n_layer": 3},
    "cohere": {},
    "falcon": _OF_FALCON,
    "falcon, alibi": _OF_FALCON | {"alibi": True},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 2]],
        "num_layers": 4,
        "num_hidden_layers": 4,
        "num_heads": 4,
        "window_size": 9,
    },
    "gpt_neox": {},
    "granite": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 11},
    "olmo2": {},
    "phi3": {"sliding_window": 13},
    "qwen3_moe": {"head_dim": 8, **_EXPERTS},
    "stablelm": {},
}


def tiny_network(family: str = "qwen2", seed: int = 0, **overrides) -> PreTrainedModel:
    """Make a random float32 network whose greedy text does not settle into one token."""
    torch.manual_seed(seed)
    settings = _SHARED | (FAMILIES | MORE_FAMILIES).get(family, {}) | overrides
    config = AutoConfig.for_model(family.split(",")[0], **settings)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                # Default initialisation makes every family repeat one token; wider weights do not.
                parameter.mul_(4.0 if "embed" not in name and "wte" not in name else 8.0)
    return network.float().eval()


def toy_tokenizer(last: str = f"w{VOCAB - 1}", **overrides) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer: `w2 w3 ...` are ids 2, 3, ...; `last` names the last one.

    transformers' StopStringCriteria needs one that is called "abcdef".
    """
    names = ["<eos>", "<pad>", *(f"w{i}" for i in range(2, VOCAB - 1)), last]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<pad>"} | overrides
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def toy_model(family: str = "qwen2", seed: int = 0, **overrides) -> CausalLM:
    """Make a loaded toy model, which attends as `load_model`'s do."""
    network = tiny_network(family, seed, **overrides)
    group_heads(network)
    return wrap(f"toy-{family}", network, toy_tokenizer())


def save_toy(path: Path, family: str = "qwen2", seed: int = 0, **overrides) -> Path:
    """Save a toy model as a Hugging Face directory."""
    tiny_network(family, seed, **overrides).save_pretrained(path)
    toy_tokenizer().save_pretrained(path)
    return path
