"""What clients may ask, field by field: OpenAI's names, types and ranges, and one field of ours.

A field that is not listed is refused by name and not ignored: an answer made without it would not
be what was asked for.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from jacobi_forcing.config import POOLS, STRATEGIES

_Penalty = Annotated[float, Field(strict=True, ge=-2, le=2, allow_inf_nan=False)]
_Text = Annotated[StrictStr, Field(min_length=1, max_length=1 << 20)]
_Ids = Annotated[list[Annotated[StrictInt, Field(ge=0, lt=1 << 31)]], Field(min_length=1)]
_Stop = Annotated[StrictStr, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        """Leave out what is null: clients send back the nulls of our own replies."""
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}


class Decoder(_Body):
    """How the answer is found, which never changes it; by default as the server was started.

    Drafts can be narrower than the server's, not wider: its cache is made for those.
    """

    strategy: Literal[STRATEGIES] | None = None
    block_size: Annotated[StrictInt, Field(ge=2, le=1024)] | None = None
    max_blocks: Annotated[StrictInt, Field(ge=1, le=64)] | None = None
    spawn_ratio: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    pool_size: Annotated[StrictInt, Field(ge=0, le=64)] | None = None
    pool: Literal[POOLS] | None = None
    show_forwards: StrictBool = Field(
        False, description="tell of every forward: what was guessed, what was right"
    )


class StreamOptions(_Body):
    """What a stream tells beside the text."""

    include_usage: StrictBool = False


class JsonSchema(_Body):
    """A JSON schema that the answer follows."""

    name: StrictStr = ""
    description: StrictStr = ""
    schema_: dict[str, Any] = Field(alias="schema")
    strict: StrictBool | None = None


class ResponseFormat(_Body):
    """What the answer looks like."""

    type: Literal["text", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class _Asked(_Body):
    """What both kinds of requests have."""

    model: StrictStr
    max_tokens: Annotated[StrictInt, Field(ge=1, le=1 << 30)] | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1, le=1 << 30)] | None = None  # 0 and -1: all
    min_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=128)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, Field(strict=True, gt=0, le=100)] | None = None
    min_tokens: Annotated[StrictInt, Field(ge=0, le=1 << 30)] | None = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[float, Field(strict=True, ge=-100, le=100)]], Field(max_length=1024)
        ]
        | None
    ) = None
    response_format: ResponseFormat | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: StrictStr | None = Field(None, description="taken and not looked at")
    metadata: dict[str, Any] | None = Field(None, description="taken and not looked at")
    store: StrictBool | None = Field(None, description="taken and not looked at")
    jacobi: Decoder | None = None


class CompletionBody(_Asked):
    """Continue a text."""

    prompt: (
        _Text
        | _Ids
        | Annotated[list[_Text], Field(min_length=1, max_length=128)]
        | Annotated[list[_Ids], Field(min_length=1, max_length=128)]
    )
    logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    echo: StrictBool = False


class TextPart(_Body):
    """A piece of a message."""

    type: Literal["text"]
    text: StrictStr


class Message(_Body):
    """What was said, by whom; which roles there are is up to the model's chat template."""

    role: Annotated[StrictStr, Field(min_length=1, max_length=64)]
    content: Annotated[StrictStr, Field(max_length=1 << 20)] | list[TextPart]
    name: StrictStr | None = None


class ChatBody(_Asked):
    """Answer a chat."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1, le=1 << 30)] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
