"""What clients are sent: OpenAI's objects, with `usage.tokens_per_forward` and `jacobi` added."""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from jacobi_forcing.serving.asked import Asked
from jacobi_forcing.serving.choice import Choice, Piece


def error_body(
    message: str, *, kind: str, field: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Make an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


class Reply:
    """Makes the objects of one reply, whole or in chunks."""

    def __init__(self, model_name: str, asked: Asked, choices: Sequence[Choice]):
        self.asked = asked
        self.choices = choices
        self.offsets = [0] * len(choices)  # characters of the tokens whose logprobs were told
        prefix, kind = (
            ("chatcmpl", "chat.completion") if asked.is_chat else ("cmpl", "text_completion")
        )
        self.head = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model_name,
        }

    @property
    def usage(self) -> dict[str, Any]:
        """Count tokens and forwards of all choices."""
        num_tokens = sum(choice.num_tokens for choice in self.choices)
        num_forwards = sum(choice.num_forwards for choice in self.choices)
        return {
            "prompt_tokens": self.asked.num_prompt,
            "completion_tokens": num_tokens,
            "total_tokens": self.asked.num_prompt + num_tokens,
            "forwards": num_forwards,
            "tokens_per_forward": round(num_tokens / max(num_forwards, 1), 4),
        }

    def whole(self, pieces: Sequence[Sequence[Piece]], echoes: Sequence[str]) -> dict[str, Any]:
        """Make a reply of all pieces, given by choice; an echo stands before each text."""
        choices = []
        for choice, own, echo in zip(self.choices, pieces, echoes, strict=True):
            joined = Piece(
                choice.number,
                echo + "".join(piece.text for piece in own),
                [one for piece in own for one in piece.logprobs],
                finish_reason=own[-1].finish_reason,
            )
            choices.append(self._choice(joined, whole=True))
        reply = self.head | {"choices": choices, "usage": self.usage}
        forwards = [p.forward for own in pieces for p in own if p.forward is not None]
        return reply | self._ours(forwards)

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        """Say who speaks, as a chat's stream begins."""
        if self.asked.is_chat:
            for choice in self.choices:
                delta = {"role": "assistant", "content": ""}
                yield self._chunk([{"index": choice.number, "delta": delta, "finish_reason": None}])

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """Make a chunk; None where a piece has nothing to say."""
        if not (piece.text or piece.logprobs or piece.forward or piece.finish_reason):
            return None
        chunk = self._chunk([self._choice(piece, whole=False)])
        return chunk | self._ours([] if piece.forward is None else [piece.forward])

    def last_chunk(self) -> dict[str, Any]:
        """Tell the usage."""
        return self._chunk([]) | {"usage": self.usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = self.head["object"] + (".chunk" if self.asked.is_chat else "")
        return self.head | {"object": kind, "choices": choices}

    def _ours(self, forwards: list[dict[str, Any]]) -> dict[str, Any]:
        """Add what OpenAI's objects have no place for, where there is some of it."""
        found: dict[str, Any] = {}
        if forwards:
            found["forwards"] = forwards
        if any(choice.ended_by == "time" for choice in self.choices):
            found["ended_by"] = "time limit"
        return {"jacobi": found} if found else {}

    def _choice(self, piece: Piece, *, whole: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": piece.choice, "finish_reason": piece.finish_reason}
        if not self.asked.is_chat:
            choice |= {"text": piece.text, "logprobs": self._old_logprobs(piece)}
        elif whole:
            choice["message"] = {"role": "assistant", "content": piece.text, "refusal": None}
        else:
            choice["delta"] = {"content": piece.text} if piece.text else {}
        if self.asked.is_chat:
            has_some = piece.logprobs or (whole and self._wants_logprobs)
            choice["logprobs"] = {"content": piece.logprobs} if has_some else None
        return choice

    @property
    def _wants_logprobs(self) -> bool:
        return self.asked.requests[0].wants_logprobs

    def _old_logprobs(self, piece: Piece) -> dict[str, Any] | None:
        """Tell logprobs as OpenAI's completions do: lists side by side."""
        if not self._wants_logprobs:
            return None
        offsets = []
        for one in piece.logprobs:
            offsets.append(self.offsets[piece.choice])
            self.offsets[piece.choice] += len(one["token"])
        return {
            "tokens": [one["token"] for one in piece.logprobs],
            "token_logprobs": [one["logprob"] for one in piece.logprobs],
            "top_logprobs": [
                {other["token"]: other["logprob"] for other in one["top_logprobs"]}
                for one in piece.logprobs
            ],
            "text_offset": offsets,
        }
