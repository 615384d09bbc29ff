"""Chats as data sets write them: brought to what chat templates read, and rendered whole."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from jacobi_forcing.errors import DataError

_FIELDS = ("messages", "conversations", "conversation")
_ROLES = {  # of ShareGPT and its kin, in lower case
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "ai", "model"), "assistant"),
}
_KNOWN = ("system", "developer", "user", "assistant", "tool")
_NEEDED = 'Needed is a list of {"role": ..., "content": ...}.'
_IS_PART = "qzpartzq"  # shows in a text where a template prints a part as Python or JSON has it

Turn = dict[str, Any]  # `role`, `content` (a text, a list of texts, or None), and what else it had


class Chat(NamedTuple):
    """A record's chat."""

    turns: list[Turn]
    converted: str  # how it was written, where that is not how chat templates read it


def find_chat(record: Mapping[str, Any], where: str) -> Chat | None:
    """Give a record's chat: `messages`, or `conversations` of `from` and `value`; None without one.

    Raises:
        DataError: It is no list of turns with a role and a text each; it names `where`.
    """
    has_prompt = record.get("prompt") is not None
    fields = _FIELDS[:1] if has_prompt else _FIELDS
    field = next((name for name in fields if record.get(name) is not None), None)
    return None if field is None else read_chat(record[field], where, field)


def read_chat(messages: Any, where: str, field: str = "messages") -> Chat:
    """Bring a list of messages to turns; see `find_chat`."""
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: {field} is {_short(messages)}. {_NEEDED}")
    turns, converted = [], ""
    for number, message in enumerate(messages, 1):
        place = f"{where}: turn {number} of the chat"
        if not isinstance(message, dict):
            raise DataError(f"{place} is {_short(message)}. {_NEEDED}")
        turn = _turn(message, place)
        turns.append(turn)
        if message.get("role") != turn["role"]:
            name = "role" if "role" in message else "from"
            converted = converted or f'"{name}": "{message[name]}" is read as {turn["role"]}'
    return Chat(turns, converted)


def _turn(message: dict[str, Any], place: str) -> Turn:
    named = {name: value for name, value in message.items() if value is not None}
    if "role" not in named and "from" in named:  # what else ShareGPT writes, no template reads
        named = {"role": named["from"], "content": named.get("value")}
    role = named.get("role")
    if not isinstance(role, str) or not role.strip():
        raise DataError(f"{place} has the role {_short(role)}; it must be a text.")
    check_unicode(role, place)
    plain = role.strip().lower()
    plain = _ROLES.get(plain, plain)
    content = named.get("content")
    if content is None and not named.get("tool_calls"):
        raise DataError(f"{place} has no content. {_NEEDED}")
    texts = [_text(part, place) for part in content] if isinstance(content, list) else content
    if not isinstance(texts, str | list | None):
        raise DataError(f"{place} has the content {_short(content)}; it must be a text.")
    for text in [texts] if isinstance(texts, str) else texts or ():
        check_unicode(text, place)
    return named | {"role": plain if plain in _KNOWN else role, "content": texts}


def _text(part: Any, place: str) -> str:
    """Give the text of a part of a content."""
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{place} holds a part of type {_short(kind)}; only text is understood.")
    return text


def split_answer(turns: Sequence[Turn], where: str) -> tuple[list[Turn], str | None]:
    """Take the answer off a chat that ends with an assistant turn.

    Returns:
        The turns that are the prompt, and the answer; None where the last turn is no answer.

    Raises:
        DataError: It ends with several, holds no other turn, or the answer is no text; it names
            `where`.
    """
    num = next((n for n, t in enumerate(reversed(turns)) if t["role"] != "assistant"), len(turns))
    if num == 0:
        return list(turns), None
    if num > 1 or len(turns) == 1:
        raise DataError(
            f"{where}: the chat ends with {num} assistant turns and has {len(turns)} in all. "
            "Needed is a chat that ends with a user's turn, or with one answer to it."
        )
    if turns[-1]["content"] is None:
        raise DataError(f"{where}: the last turn calls a tool, which is no answer. Remove it.")
    return list(turns[:-1]), _joined(turns[-1]["content"])


def render(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, where: str) -> list[int]:
    """Put a chat through the chat template, up to where the assistant speaks; return ids.

    Most templates read a content as a text, some as a list of parts, and lose the other form, or a
    role that they do not know. What a template loses is found out by rendering the chat once more,
    with a mark after every text. Earlier answers are not looked for: templates leave thoughts out.

    Raises:
        DataError: There is no template, it refuses the chat or loses a turn in both forms, or the
            last turn is empty; it names `where`.
    """
    if tokenizer.chat_template is None:
        raise DataError(
            f"{where}: has messages, but this model's tokenizer has no chat template. "
            'Give "prompt" instead.'
        )
    last = turns[-1]
    if last["role"] != "assistant" and not _joined(last["content"]).strip():
        raise DataError(f"{where}: the last turn ({last['role']}) is empty, and must not be.")
    problem = ""
    for messages in (_as_texts(turns), _as_parts(turns)):
        try:
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            lost = _lost(messages, tokenizer)
        except Exception as error:  # whatever the template makes of what it does not expect
            problem = problem or f"refuses these messages: {error}. {_NEEDED}"
            continue
        if not lost:
            return ids
        role = turns[lost - 1]["role"]
        problem = problem or f"leaves out turn {lost}, whose role is {role!r}. Change or remove it."
    raise DataError(f"{where}: the chat template {problem}")


def _lost(messages: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the number of the first turn whose text the template leaves out; 0 if there is none."""
    marks = [f"qz{number}zq" for number in range(len(messages))]
    marked = [_marked(turn, mark) for turn, mark in zip(messages, marks, strict=True)]
    text = tokenizer.apply_chat_template(marked, add_generation_prompt=True, tokenize=False)
    for number, (turn, mark) in enumerate(zip(messages, marks, strict=True), 1):
        is_there = mark in text.lower() and _IS_PART not in text
        if turn["role"] != "assistant" and turn["content"] and not is_there:
            return number
    return 0


def _marked(turn: Turn, mark: str) -> Turn:
    content = turn["content"]
    if isinstance(content, str):
        return turn | {"content": content + mark}
    if not content:
        return turn
    last = content[-1] | {"text": content[-1]["text"] + mark, _IS_PART: True}
    return turn | {"content": [*content[:-1], last]}


def _as_texts(turns: Sequence[Turn]) -> list[Turn]:
    return [t if t["content"] is None else t | {"content": _joined(t["content"])} for t in turns]


def _as_parts(turns: Sequence[Turn]) -> list[Turn]:
    return [t if t["content"] is None else t | {"content": _parts(t["content"])} for t in turns]


def _parts(content: str | list[str]) -> list[dict[str, str]]:
    texts = [content] if isinstance(content, str) else content
    return [{"type": "text", "text": text} for text in texts]


def _joined(content: str | list[str] | None) -> str:
    return content if isinstance(content, str) else "\n".join(content or ())


def check_unicode(text: str, where: str) -> None:
    """Raise DataError that names `where` and the first character that is half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, or bytes that were not UTF-8
        raise DataError(
            f"{where}: {text[error.start]!r} at character {error.start} is not valid Unicode. Give "
            "UTF-8 text."
        ) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
