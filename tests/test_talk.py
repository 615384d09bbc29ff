"""Properties of `jacobi chat` and of the prompts of `jacobi decode`."""

import io
import json
import signal
import sys
import threading

import pytest
from toys import save_toy

import jacobi_forcing as jf
from jacobi_forcing.cli import main
from jacobi_forcing.config import ChatConfig, DecodeConfig
from jacobi_forcing.drawing.terminal import forcing_hint
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages import chat
from jacobi_forcing.stages.chat import Conversation

TEMPLATE = (
    "{% for m in messages %}{{ {'user': 'w60', 'assistant': 'w61', 'system': 'w62'}[m.role] }} "
    "{{ m.content }} {% endfor %}{% if add_generation_prompt %}w61{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = save_toy(tmp_path_factory.mktemp("talker"), max_position_embeddings=128)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return jf.load_model(str(folder))


@pytest.fixture
def typed(monkeypatch, capsys):
    """Run a command with lines on standard input; return its exit code and what it printed."""

    def run(text, *arguments):
        data = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        return main([str(a) for a in arguments]), *capsys.readouterr()

    return run


def talk(model, **settings):
    return Conversation(
        ChatConfig(**{"model": "m", "block_size": 4, "max_new_tokens": 12} | settings), model
    )


def render(model, messages):
    return model.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )


# chat


@pytest.mark.parametrize("strategy", ["window", "jacobi", "autoregressive", "prompt-lookup"])
def test_every_answer_is_that_of_the_whole_conversation_and_no_turn_is_read_twice(
    strategy, model, capsys
):
    found = talk(model, max_new_tokens=12, strategy=strategy, system="w3 w4 w5")
    said = [{"role": "system", "content": "w3 w4 w5"}]
    for line in ("w6 w7 w8 w9", "w10 w11", "w12"):
        assert found.hear(line)
        said.append({"role": "user", "content": line})
        expected = jf.answer(model, render(model, said), max_new_tokens=12)
        assert found.turns[-1] == {"role": "assistant", "content": expected.text}
        said.append(found.turns[-1])
        printed = capsys.readouterr().out
        assert printed.startswith(expected.text + "\n")
        assert "tokens per forward" in printed
        assert "tokens per second" in printed
    assert found.turns == said[1:]
    assert found.loop.prefixes.num_copied > 30, "the cache of earlier turns is used again"


def test_commands_change_the_conversation_and_are_not_said_to_the_model(model, capsys):
    found = talk(model)
    found.hear("w5 w6")
    assert found.hear("/system w9 w10")
    found.hear("w7")
    turns = [{"role": "system", "content": "w9 w10"}, *found.turns[:3]]
    expected = jf.answer(model, render(model, turns), max_new_tokens=12)
    assert found.turns[-1]["content"] == expected.text
    assert found.hear("/reset")
    assert found.turns == []
    found.hear("/system")
    found.hear("w5 w6")
    alone = jf.answer(model, render(model, found.turns[:1]), max_new_tokens=12)
    assert found.turns[-1]["content"] == alone.text
    capsys.readouterr()
    assert found.hear("/help")
    assert "/reset" in capsys.readouterr().out
    assert found.hear("   ")
    with pytest.raises(DataError, match="/sytem: no such command"):
        found.hear("/sytem w3")
    assert not found.hear("/quit")
    assert len(found.turns) == 2


def test_a_full_context_drops_the_oldest_turns_and_says_so(model, capsys):
    found = talk(model, max_new_tokens=12, max_tokens=64)
    lines = [" ".join(f"w{n + i}" for i in range(2, 12)) for n in range(6)]
    num_dropped = 0
    for line in lines:
        found.hear(line)
        num_dropped += capsys.readouterr().out.count("turns are dropped")
        assert len(render(model, found.turns)) <= 64 + 1
        expected = jf.answer(model, render(model, found.turns[:-1]), max_new_tokens=12)
        assert found.turns[-1]["content"] == expected.text
    assert num_dropped >= 2
    before = list(found.turns)
    with pytest.raises(DataError, match="the context of 64 has to hold the answer too"):
        found.hear("w5 " * 70)
    assert found.turns == before


def test_ctrl_c_stops_the_answer_and_not_the_chat(model, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    found = talk(model, max_new_tokens=40, strategy="autoregressive")
    expected = jf.answer(
        model, render(model, [{"role": "user", "content": "w5 w6"}]), max_new_tokens=40
    )
    assert len(expected.ids) > 10
    pieces = []

    def say(piece):
        pieces.append(piece)
        if len(pieces) == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(chat, "say", say)
    assert found.hear("w5 w6")
    text = "".join(pieces)
    assert expected.text.startswith(text)
    assert text
    assert len(text) < len(expected.text)
    assert found.turns[-1]["content"] == text
    assert "; stopped" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    found.hear("w7")
    again = jf.answer(model, render(model, found.turns[:-1]), max_new_tokens=40)
    assert found.turns[-1]["content"] == again.text
    assert threading.current_thread() is threading.main_thread()


def test_lines_of_a_pipe_are_turns_and_its_end_is_the_end(folder, model, typed):
    arguments = ("chat", "--model", folder, "--block-size", 4, "--max-new-tokens", 12)
    code, out, err = typed("w5 w6\n\nw7", *arguments)
    assert code == 0
    said = []
    for line in ("w5 w6", "w7"):
        said.append({"role": "user", "content": line})
        found = jf.answer(model, render(model, said), max_new_tokens=12)
        said.append({"role": "assistant", "content": found.text})
        assert f"{found.text}\n{len(found.ids)} tokens in " in out
    assert out.count("tokens per second") == 2
    assert err.startswith(f"loading {folder} ...\n")
    assert typed("w5\n/quit\nw6\n", *arguments)[1].count("tokens per second") == 1
    for line, message in (("/what", "no such command"), (b"w5 \xff", "not valid Unicode")):
        code, _, err = typed(line, *arguments)
        assert (code, message in err) == (2, True)


def test_a_model_that_knows_no_turns_is_refused(toy, refused):
    assert "no chat template, so it knows no turns" in refused("chat", "--model", toy)
    assert "no chat template" in refused("chat", "--model", "tiny-forced")


# decode


def decoded(folder, typed, *more, text=""):
    code, out, _ = typed(text, "decode", "--model", folder, "--json", *more)
    assert code == 0
    return json.loads(out.splitlines()[-1])["ids"]


def test_decode_takes_the_chat_template_where_there_is_one(folder, model, toy, typed, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("\ufeffw5 w6")  # as some editors save it
    chat_ids = jf.answer(model, [60, 5, 6, 61]).ids
    raw_ids = jf.answer(model, "w5 w6").ids
    assert chat_ids != raw_ids
    for prompt, text in (("w5 w6", ""), (f"@{file}", ""), ("-", "w5 w6\n")):
        for flags in ((), ("--chat",)):
            assert decoded(folder, typed, "--prompt", prompt, *flags, text=text) == chat_ids
        assert decoded(folder, typed, "--prompt", prompt, "--raw", text=text) == raw_ids
    plain = jf.answer(jf.load_model(str(toy)), "w5 w6").ids
    assert decoded(toy, typed, "--prompt", "w5 w6") == plain
    assert decoded(toy, typed, "--prompt", "w5 w6", "--raw") == plain
    with pytest.raises(ConfigError, match="opposites"):
        DecodeConfig(prompt="x", chat=True, raw=True)


def test_decode_says_how_fast_it_was_and_what_to_try(folder, typed, caplog):
    caplog.set_level("INFO")
    code, out, err = typed(
        "", "decode", "--model", folder, "--prompt", "w5 w6", "--max-new-tokens", 9
    )
    assert code == 0
    assert "tokens per forward, " in out
    assert "tokens per second\n" in out
    assert err.splitlines()[0] == f"loading {folder} ..."
    assert "--raw" in caplog.text
    assert "not forced" in forcing_hint("window", 20, 19)
    assert not forcing_hint("window", 40, 20)
    assert not forcing_hint("window", 2, 2), "too few to tell"
    assert not forcing_hint("autoregressive", 20, 20), "it did not guess"


@pytest.mark.parametrize(
    ("name", "more", "hint"),
    [
        ("folder", (), "take --raw"),
        ("folder", ("--raw",), "Leave out --raw"),
        ("toy", (), "End the prompt where a text would go on"),
    ],
)
def test_an_empty_answer_says_so(name, more, hint, request, typed, monkeypatch):
    from jacobi_forcing.decoding import Finished
    from jacobi_forcing.decoding.answer import Answer
    from jacobi_forcing.stages import decode

    nothing = Answer("", Finished(0, [0], "eos", 1), [])
    monkeypatch.setattr(decode, "answer", lambda *_, **__: nothing)
    path = request.getfixturevalue(name)
    code, out, _ = typed("", "decode", "--model", path, "--prompt", "w5", *more)
    assert code == 0
    assert "1 token in 1 forward: 1.00" in out
    assert "ended its answer at once" in out
    assert hint in out


@pytest.mark.slow
def test_the_real_model_answers_as_a_chat_and_ends_at_once_without(real_model, typed):
    ask = ("decode", "--model", real_model, "--prompt", "What is 12 + 5?", "--max-new-tokens", 24)
    _, out, _ = typed("", *ask)
    assert len(out.splitlines()[0]) > 3
    assert "this model is not forced" in out
    _, out, _ = typed("", *ask, "--raw")
    assert "Leave out --raw" in out
    code, out, _ = typed(
        "Say hello.\nAgain.\n", "chat", "--model", real_model, "--max-new-tokens", 8
    )
    assert code == 0
    assert out.count("tokens per second") == 2
