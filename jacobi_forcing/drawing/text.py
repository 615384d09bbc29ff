"""Tokens as text that is safe to look at: control characters visible, half characters held back."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def readable(text: str) -> str:
    """Replace control characters by their pictures: a raw ESC would command a terminal."""
    return text.translate(_CONTROL)


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Give a token's text as it reads inside a text: with the space that it begins with."""
    # Some decoders drop a text's first space, so the token is decoded behind another one.
    before = tokenizer.encode("a", add_special_tokens=False)[-1:]
    start = _decode(tokenizer, before)
    return readable(_decode(tokenizer, [*before, token])[len(start) :])


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Split the text of `ids` into what each id adds; together they are the text.

    An id that ends within a character adds nothing; the one that completes it adds the character.
    """
    found, shown = [], 0
    for end in range(1, len(ids) + 1):
        text = _decode(tokenizer, ids[:end])
        whole = text if end == len(ids) else text.rstrip("\ufffd")
        found.append(readable(whole[shown:]))
        shown = max(shown, len(whole))
    return found


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
