"""From a prompt's text to the ids that a model continues."""

import logging
import weakref
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Messages that were logged already: a collection has thousands of prompts.
_logged: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, set[str]] = weakref.WeakKeyDictionary()


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode a prompt with the special tokens that begin a text, without those that end one.

    Some tokenizers append an EOS or a SEP to every text, as training needs it. After it, a model
    begins a new text. These tokens are removed, and so is a second BOS (`with_one_bos`); a log line
    says so once per tokenizer.
    """
    ids = tokenizer.encode(text)
    appended = _appended(tokenizer)
    if appended and ids[-len(appended) :] == appended:
        names = " ".join(map(str, tokenizer.convert_ids_to_tokens(appended)))
        _log_once(tokenizer, f"the tokenizer appends {names} to every text; prompts go without it.")
        ids = ids[: -len(appended)]
    own = tokenizer.encode(text, add_special_tokens=False)[:2]
    return ids if ids[:2] == own else with_one_bos(tokenizer, ids)


def with_one_bos(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Remove one of two BOS at the beginning: the text has one, and the tokenizer adds one."""
    ids, bos = list(ids), tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        _log_once(tokenizer, f"a prompt begins with two {tokenizer.bos_token}; one is removed.")
        return ids[1:]
    return ids


def _appended(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Find the ids that a tokenizer appends to every text."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    for first in range(len(whole) - len(bare) + 1):
        if bare and whole[first : first + len(bare)] == bare:
            return whole[first + len(bare) :]
    return []


def _log_once(tokenizer: PreTrainedTokenizerBase, message: str) -> None:
    logged = _logged.setdefault(tokenizer, set())
    if message not in logged:
        logged.add(message)
        logger.warning("%s: %s", tokenizer.name_or_path or type(tokenizer).__name__, message)
