"""The configuration of a small model of the same family."""

import copy

from transformers import PretrainedConfig

_HEAD_DIM = 8
_KEY_HEADS = 2
_LAYERS = 2
_EXPERTS = 4


def small(config: PretrainedConfig) -> PretrainedConfig:
    """Give a configuration of the same family with few, narrow layers.

    What is kept: the vocabulary, positions, a layer of every type, how many query heads share a
    key head, how much wider the feed-forward layers are, and everything else that it says.
    """
    found = copy.deepcopy(config.get_text_config())
    heads = found.num_attention_heads
    key_heads = getattr(found, "num_key_value_heads", None) or heads
    few = min(key_heads, _KEY_HEADS)
    width = heads // key_heads * few * _HEAD_DIM
    wider = (getattr(found, "intermediate_size", None) or 4 * found.hidden_size) / found.hidden_size
    types = getattr(found, "layer_types", None)
    layers = list(dict.fromkeys(types or ()))
    layers += layers[-1:] * (_LAYERS - len(layers))
    wanted = {
        "num_hidden_layers": len(layers) or _LAYERS,
        "layer_types": layers if types else None,
        "num_attention_heads": heads // key_heads * few,
        "num_key_value_heads": few,
        "num_kv_heads": few,
        "head_dim": _HEAD_DIM,
        "hidden_size": width,
        "intermediate_size": round(wider * width),
        "moe_intermediate_size": width,
        "num_experts": _EXPERTS,
        "num_local_experts": _EXPERTS,
        "num_experts_per_tok": 2,
        "initializer_range": 0.1,  # so that its greedy text is not one token over and over
    }
    for name, value in wanted.items():
        if getattr(found, name, None) is not None:
            setattr(found, name, value)
    return found
