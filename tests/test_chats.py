"""Properties of chats in files: whose words reach the model, and what is refused by line."""

import json
import logging

import pytest
from toys import EOS, toy_tokenizer

from jacobi_forcing.data.prompts import read_prompts
from jacobi_forcing.errors import DataError

PLAIN = (
    "{% for m in messages %}{{ 'w60 ' if m.role == 'user' else 'w61 ' if m.role == 'assistant' "
    "else 'w62 ' }}{{ m.content }} {% endfor %}{% if add_generation_prompt %}w61{% endif %}"
)
# Each is the beginning and the end of what real templates do; what they do not know, they drop.
BY_ROLE = (
    "{% for m in messages %}{% if m.role == 'user' %}w60 {{ m.content | trim }} "
    "{% elif m.role == 'assistant' %}w61 {{ m.content.split('</think>')[-1] }} "
    "{% elif m.role == 'system' %}w62 {{ m.content }} {% endif %}{% endfor %}w61"
)
OF_PARTS = (
    "{% for m in messages %}{{ 'w60 ' if m.role == 'user' else 'w61 ' }}{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}w61"
)
ONLY_LAST = "w60 {{ messages[-1].content }} w61"
WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}w60 {{ m.content }} {% endif %}"
    "{% endfor %}w61"
)


def turn(role, content):
    return {"role": role, "content": content}


def read(tmp_path, records, template=PLAIN, name="prompts.jsonl"):
    path = tmp_path / name
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    path.write_bytes(b"\n".join(lines))
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = template
    return read_prompts(str(path), tokenizer, context_tokens=60)


def refusal(tmp_path, record, template=PLAIN):
    """The reason why a file's second line is refused."""
    with pytest.raises(DataError) as refused:
        read(tmp_path, [{"prompt": "w2"}, record], template)
    text = str(refused.value)
    assert text.startswith(f"{tmp_path}/prompts.jsonl:2: "), text
    return text


def test_the_last_turn_is_the_answer_where_the_assistant_has_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    chats = [
        {"messages": [turn("user", "w5"), turn("assistant", "w7 w8")]},
        {"messages": [turn("user", "w5")], "answer": "w7 w8"},
        {"messages": [turn("user", "w5"), turn("assistant", "w7 w8")], "answer": "w7 w8"},
        {"messages": [turn("user", "w5"), turn("assistant", "w7"), turn("user", "w9")]},
        {"conversations": [{"from": "human", "value": "w5"}, {"from": "gpt", "value": "w7 w8"}]},
    ]
    found = read(tmp_path, chats)
    first = ([60, 5, 61], [7, 8, EOS])
    assert [(p.ids, p.answer) for p in found] == [
        *[first] * 3,
        ([60, 5, 61, 7, 60, 9, 61], None),
        first,
    ]
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2, "once for each kind, not for every line"
    assert "prompts.jsonl:1" in said[0]
    assert "it is the answer" in said[0]
    assert '"from": "human" is read as user' in said[1]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            [turn("user", "w5"), turn("assistant", "w7"), turn("assistant", "w8")],
            "ends with 2 assistant turns",
        ),
        ([turn("assistant", "w7")], "ends with 1 assistant turns and has 1 in all"),
        ([turn("user", "w5"), turn("user", " \n")], "the last turn (user) is empty"),
        ([turn("user", "w5"), turn("user", "")], "the last turn (user) is empty"),
        ([turn("user", []), turn("assistant", "w7")], "the last turn (user) is empty"),
        ([[turn("user", "w5")]], "turn 1 of the chat is [{"),
        ([turn("user", [[turn("user", "w5")]])], "holds a part of type 'list'"),
        ([turn("user", [{"type": "image_url", "image_url": "x"}])], "type 'image_url'; only text"),
        ([turn("user", 5)], "turn 1 of the chat has the content 5"),
        ([turn("user", {"text": "w5"})], "has the content {'text'"),
        ([turn("user", None)], "turn 1 of the chat has no content"),
        ([{"role": "user"}], "turn 1 of the chat has no content"),
        ([{"content": "w5"}], "has the role None"),
        ([turn(5, "w5")], "has the role 5"),
        ([turn("", "w5")], "has the role ''"),
        ([5], "turn 1 of the chat is 5"),
        ([None], "turn 1 of the chat is None"),
        ([], "messages is []"),
        ("w5", "messages is 'w5'"),
        ({"role": "user"}, "messages is {'role'"),
        ([turn("user", "w5 \ud800")], "not valid JSON"),
        (
            [turn("user", "w5"), {"role": "assistant", "tool_calls": [{"name": "f"}]}],
            "calls a tool",
        ),
    ],
)
def test_what_is_no_chat_is_named_by_file_and_line(record, message, tmp_path):
    assert message in refusal(tmp_path, {"messages": record})


def test_an_answer_given_twice_has_to_be_one(tmp_path):
    chat = [turn("user", "w5"), turn("assistant", "w7")]
    assert "another answer" in refusal(tmp_path, {"messages": chat, "answer": "w8"})


@pytest.mark.parametrize("template", [PLAIN, BY_ROLE])
def test_sharegpt_and_capital_roles_are_read_as_what_they_mean(template, tmp_path):
    plain = [turn("system", "w3"), turn("user", "w5"), turn("assistant", "w7"), turn("user", "w8")]
    names = {"system": "System", "user": "human", "assistant": "gpt"}
    shared = [{"from": names[t["role"]], "value": t["content"]} for t in plain]
    records = [
        {"messages": plain},
        {"conversations": shared},
        {"messages": shared},
        {"conversation": plain},
        {"messages": [turn(t["role"].upper(), t["content"]) for t in plain]},
        {"messages": [t | {"name": None} for t in plain]},  # as Parquet files give them
    ]
    found = read(tmp_path, records, template)
    assert [p.ids for p in found] == [[62, 3, 60, 5, 61, 7, 60, 8, 61]] * len(records)


def test_a_template_of_parts_gets_parts_and_one_of_texts_a_text(tmp_path):
    text, parts = turn("user", "w5 w6"), [{"type": "text", "text": "w5"}, "w6"]
    records = [{"messages": [text]}, {"messages": [turn("user", parts)]}]
    for template in (PLAIN, OF_PARTS):
        found = read(tmp_path, records, template)
        assert [p.ids for p in found] == [[60, 5, 6, 61]] * 2


@pytest.mark.parametrize(
    ("template", "messages", "lost"),
    [
        (BY_ROLE, [turn("narrator", "w5")], "leaves out turn 1, whose role is 'narrator'"),
        (BY_ROLE, [turn("tool", "w5"), turn("user", "w6")], "leaves out turn 1"),
        (ONLY_LAST, [turn("user", "w5"), turn("user", "w6")], "leaves out turn 1"),
        (WITHOUT_SYSTEM, [turn("system", "w5"), turn("user", "w6")], "leaves out turn 1"),
        ("w60 w61", [turn("user", "w60")], "leaves out turn 1"),  # though its text is there
        ("{{ messages[0].content[:2] }}", [turn("user", "w5 w6")], "leaves out turn 1"),
        ("{{ (messages | tojson)[:30] }}", [turn("user", "w5")], "leaves out turn 1"),
        ("{{ raise_exception('no') }}", [turn("user", "w5")], "refuses these messages: no"),
        ("{{ messages[0].content.x.y }}", [turn("user", "w5")], "refuses these messages"),
    ],
)
def test_no_word_of_the_user_is_lost_without_a_word(template, messages, lost, tmp_path):
    assert lost in refusal(tmp_path, {"messages": messages}, template)


def test_a_thought_that_a_template_leaves_out_is_no_loss(tmp_path):
    chat = [turn("user", "w5"), turn("assistant", "w9 </think> w7"), turn("user", "w8")]
    (found,) = read(tmp_path, [{"messages": chat}], BY_ROLE)
    assert found.ids == [60, 5, 61, 7, 60, 8, 61]


@pytest.mark.parametrize(
    "chat_of", [lambda text: text, lambda text: [{"type": "text", "text": text}]]
)
def test_chats_of_the_real_model_are_those_of_its_template(chat_of, tmp_path, request):
    """The real template concatenates texts and would fail on parts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue("real_model"))
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"messages": [turn("user", chat_of("What is 2+3?"))]}))
    (found,) = read_prompts(str(path), tokenizer, context_tokens=1000)
    text = tokenizer.decode(found.ids)
    assert text.endswith("<|im_start|>user\nWhat is 2+3?<|im_end|>\n<|im_start|>assistant\n")
