"""When an answer ends before its budget: stop strings, also across token borders."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from jacobi_forcing.config import check

# Whether an answer ends with its newest token. What it says may depend on the answer only.
Stop = Callable[[Sequence[int]], bool]


class StopStrings:
    """Tells whether the newest token of an answer completes a stop string.

    It looks at the last tokens' text only, as many as the longest string can span. Whether a token
    ends an answer depends on the answer up to it, not on how many tokens came with it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str] | str):
        strings = [strings] if isinstance(strings, str) else list(strings)
        check(all(strings), "a stop string is empty.")
        self.tokenizer = tokenizer
        self.strings = strings
        # A character may take as many tokens as it has bytes.
        self.num_tokens = max(len(string.encode()) for string in strings) + 1

    def __call__(self, answer: Sequence[int]) -> bool:
        """Look at an answer whose tokens but the last have not met one."""
        text = self.tokenizer.decode(answer[-self.num_tokens :])
        return any(string in text for string in self.strings)
