"""Properties of the view in the terminal and of the demo around it."""

import io
import json
import re

import pytest
from rich.console import Console
from test_drawing import data_of, fake_decode
from toys import toy_model, toy_tokenizer

from jacobi_forcing.cli import main
from jacobi_forcing.config import DemoConfig
from jacobi_forcing.drawing.terminal import Side, watch
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.stages import demo


def events_of(decode):
    forwards, finished = decode
    return iter([*forwards, finished])


@pytest.mark.parametrize("width", [60, 120])
def test_both_ways_of_watching_end_with_the_whole_answer(width):
    for is_terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, width=width, height=40)
        tokenizer = toy_tokenizer()
        decodes = [fake_decode("autoregressive", num_tokens=6), fake_decode("window", num_tokens=6)]
        sides = [Side("left", tokenizer), Side("right", tokenizer)]
        watch(console, list(zip(sides, map(events_of, decodes), strict=True)))
        text = tokenizer.decode(decodes[0][1].answer_ids, skip_special_tokens=True)
        assert [side.answer for side in sides] == [finished.answer_ids for _, finished in decodes]
        assert [side.num_forwards for side in sides] == [f.num_forwards for _, f in decodes]
        assert all(side.text.plain == text for side in sides)
        assert ("\x1b" in out.getvalue()) == is_terminal
        assert is_terminal or out.getvalue().count(text) == 2


def test_a_view_higher_than_the_screen_shows_its_end():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=8)
    side = Side("only", toy_tokenizer())
    watch(console, [(side, events_of(fake_decode("window", num_tokens=100)))])
    last = out.getvalue().rsplit("only", 1)[1]
    words = side.text.plain.split()
    assert words[-1] in last
    assert len(re.findall(r"w\d", last)) < len(words)
    assert len(last.splitlines()) <= 8


def test_demo_shows_its_table_and_writes_its_page(tmp_path, capsys):
    page = tmp_path / "demo.html"
    config = DemoConfig(num_problems=3, block_size=4, html=str(page))
    context = {"max_position_embeddings": 512}
    demo.run_pair(config, toy_model(seed=0, **context), toy_model(seed=1, **context), 24)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    table = out[out.index("3 held-out problems") : out.index("Wrote")]
    assert max(map(len, table.splitlines())) <= 80
    rows = [line.split() for line in out.splitlines() if line.startswith("toy-qwen2  ")]
    decoders = ["autoregressive", "prompt-lookup", "window", "autoregressive", "jacobi", "window"]
    assert [row[1] for row in rows] == decoders
    assert [row[-1] for row in rows] == ["0"] * 6
    assert data_of(page.read_text(encoding="utf-8"))["strategy"] == "window"


@pytest.mark.parametrize("settings", [{"num_problems": 0}, {"html": "."}])
def test_demo_refuses_what_it_cannot_do(settings):
    with pytest.raises(ConfigError, match="--"):
        demo.run(DemoConfig(**settings))


def test_the_problem_that_the_demo_suggests_is_solved_as_it_is_typed(capsys):
    assert main(["decode", "--json", "--prompt", demo._EXAMPLE]) == 0
    assert json.loads(capsys.readouterr().out)["text"].endswith("Answer: 84 plums")
