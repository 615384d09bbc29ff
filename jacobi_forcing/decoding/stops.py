"""When an answer's text ends: stop strings, also across token borders."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from jacobi_forcing.config import check


class StopStrings:
    """Tells whether the newest token of an answer completes a stop string.

    It looks at the last tokens' text only, as many as the longest string can span. Whether a token
    ends an answer depends on the answer up to it, not on how many tokens came with it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str]):
        check(all(strings), "a stop string is empty.")
        self.tokenizer = tokenizer
        self.strings = strings
        # A character may take as many tokens as it has bytes.
        self.num_tokens = max(len(string.encode()) for string in strings) + 1

    def is_met(self, answer: Sequence[int]) -> bool:
        """Look at an answer whose tokens but the last have not met one."""
        text = self.tokenizer.decode(answer[-self.num_tokens :])
        return any(string in text for string in self.strings)
