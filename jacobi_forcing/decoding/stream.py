"""Text as it settles: pieces that are whole characters and add up to the final text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_BROKEN = "�"  # what tokenizers write for bytes that are no character yet


class TextStream:
    """Turns token ids, in portions of any size, into pieces of text.

    A tokenizer decodes a token differently at the beginning of a text, so new tokens are decoded
    behind the last ones whose text is out, and what those gave alone is taken off.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, skip_special_tokens: bool = True):
        self.tokenizer = tokenizer
        self.skip_special_tokens = skip_special_tokens
        self.before: list[int] = []  # ids whose text is out, as many as new ones need before them
        self.waiting: list[int] = []  # ids whose text is not

    def push(self, ids: Sequence[int]) -> str:
        """Take in tokens; give the text that they complete, which may be none."""
        self.waiting += ids
        if self.waiting and self._is_byte(self.waiting[-1]):
            return ""  # of a run of bytes, all change while the last character is not whole
        piece = self._piece()
        return "" if piece.endswith(_BROKEN) else self._release(piece)

    def finish(self) -> str:
        """Give what is left, a broken character included."""
        return self._release(self._piece())

    def _is_byte(self, token: int) -> bool:
        """Tell whether a token is a byte of SentencePiece's fallback, as <0xF0>."""
        name = self.tokenizer.convert_ids_to_tokens(token) or ""
        return len(name) == 6 and name.startswith("<0x")

    def _piece(self) -> str:
        return self._decode(self.before + self.waiting)[len(self._decode(self.before)) :]

    def _release(self, piece: str) -> str:
        if piece:
            self.before, self.waiting = self.waiting, []
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=self.skip_special_tokens)
