"""Save checkpoints that load wherever the model they were made from loads.

Training changes weights alone. So generation_config.json and the tokenizer's files are those of the
start. What transformers 4 and 5 spell differently is written in both spellings: each reads its own,
and takes a default, without a word, where it finds none.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
# What some families of transformers 4 call a rotary setting: layer type, and its name in 5.
_ALIASES = {
    "rotary_emb_base": (_GLOBAL, "rope_theta"),
    "rotary_pct": (_GLOBAL, "partial_rotary_factor"),
    "global_rope_theta": (_GLOBAL, "rope_theta"),
    "rope_local_base_freq": (_LOCAL, "rope_theta"),
    "local_rope_theta": (_LOCAL, "rope_theta"),
}
# Families that transformers 4 allows `type` and factors in rope_scaling, and not one key more.
_STRICT = ("olmo", "olmo2", "phi3", "phi4_multimodal")
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json"),
)


def save_network(network: PreTrainedModel, folder: Path) -> None:
    """Save weights, config.json and generation_config.json in a folder, which is made."""
    network.save_pretrained(folder)
    finish(network, folder)


def finish(network: PreTrainedModel, folder: Path) -> None:
    """Complete what `network.save_pretrained` wrote in a folder, or PEFT around the network.

    Changed in place: config.json has both spellings, generation_config.json is that of the start,
    and all files are readable by whom the umask lets read.
    """
    if (folder / "config.json").is_file():
        written = _read(folder / "config.json")
        _write(folder / "config.json", in_both_spellings(written, network.config))
        _copy("generation_config.json", network.name_or_path, folder)
    open_to_readers(folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a tokenizer: the files that it was loaded from, or new ones where there are none."""
    tokenizer.save_pretrained(folder)
    for name in {*_TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}:
        _copy(name, tokenizer.name_or_path, folder)
    path = folder / "tokenizer_config.json"
    _write(path, _tokenizer_for_both(_read(path)))
    open_to_readers(folder)


def open_to_readers(folder: Path) -> None:
    """Give a folder's files the mode that the umask leaves: safetensors writes for the owner only.

    The umask itself cannot be read without changing it, which other threads would see.
    """
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(mode)


def in_both_spellings(written: dict[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """Add to a config.json by transformers 5 what transformers 4 reads in its place.

    Args:
        written: The file's content.
        config: What was written.

    Returns:
        The content, with all that it had. transformers 5 reads the same from it.
    """
    found = dict(written)
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(found.get(name), dict) and isinstance(part, PretrainedConfig):
            found[name] = in_both_spellings(found[name], part)
    if isinstance(found.get("dtype"), str):
        found["torch_dtype"] = found["dtype"]
    # Some families keep a setting under another name than the one they ask for.
    own = {field.name for field in fields(config)}
    for name, kept in config.attribute_map.items():
        if name in own and kept in written:
            found.setdefault(name, written[kept])
    return found | _old_rope(written, config)


def _old_rope(written: dict[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """Give the rotary settings as transformers 4 spells them."""
    rope = written.get("rope_parameters") or {}
    is_nested = any(isinstance(part, dict) for part in rope.values())
    parts = rope if is_nested else {_GLOBAL: rope}
    main = parts.get(_GLOBAL) or {}
    if main.get("rope_theta") is None:
        return {}
    found = {name: main[name] for name in ("rope_theta", "partial_rotary_factor") if name in main}
    found["rope_scaling"] = _old_scaling(main, written | found)
    for alias, (layers, name) in _ALIASES.items():
        value = (parts.get(layers) or {}).get(name)
        if value is not None and _is_read(alias, config):
            found[alias] = value
    return found


def _old_scaling(rope: dict[str, Any], outside: dict[str, Any]) -> dict[str, Any] | None:
    """Give what is more than a base, without what the configuration has outside of it too."""
    kind = rope.get("rope_type", "default")
    scaling = {n: x for n, x in rope.items() if n not in (*outside, "rope_type")}
    if kind == "default" and not scaling:
        return None
    return scaling | {"type" if outside["model_type"] in _STRICT else "rope_type": kind}


def _is_read(name: str, config: PretrainedConfig) -> bool:
    """Tell whether the family takes a rotary setting by this name."""
    marker = 0.4321
    settings = config.to_dict() | {"rope_parameters": None, name: marker}
    try:
        found = type(config).from_dict(settings).rope_parameters or {}
    except Exception:  # code of the checkpoint's own may want anything; no training is lost to it
        return False
    return any(marker in part.values() for part in (found, *found.values()) if type(part) is dict)


def _tokenizer_for_both(settings: dict[str, Any]) -> dict[str, Any]:
    """Spell a tokenizer_config.json as transformers 4 does, which 5 reads as well."""
    found = {n: x for n, x in settings.items() if n not in ("is_local", "local_files_only")}
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(found.get("extra_special_tokens"), list):
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    named = found.pop("model_specific_special_tokens", None)
    if named:
        found["extra_special_tokens"] = named
    return found


def _copy(name: str, source: str, folder: Path) -> None:
    """Copy a file from a folder, or from the cache of a hub id, into a folder.

    Where there is no such file, what `save_pretrained` wrote stays. No network is asked.
    """
    quiet = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = None
    with suppress(OSError):  # a folder that was moved after the model had been loaded from it
        found = source and cached_file(source, name, local_files_only=True, **quiet)
    if found:
        shutil.copyfile(found, folder / name)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
