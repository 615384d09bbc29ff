"""What a stage says while it works: life at once, and a time left that can be believed."""

import io
import math
import random
import time

import pytest
from packs import random_packed
from training import BLOCK, small_run, train_config

from jacobi_forcing import progress
from jacobi_forcing.progress import AnswerProgress, Bar, progress_bar
from jacobi_forcing.stages import judge
from jacobi_forcing.stages.recipe import read_recipe
from jacobi_forcing.training.arguments import num_steps, training_arguments
from jacobi_forcing.training.defaults import untuned


class Time:
    """A clock that goes on only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Time(monkeypatch)


def test_a_log_has_a_line_at_once_and_goes_on_though_nothing_moves(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.05)
    with progress_bar("work", 7, unit="things") as bar:
        assert capsys.readouterr().err == "work: 0/7 things\n"
        deadline = time.monotonic() + 10
        said = ""
        while said.count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
            said += capsys.readouterr().err
        assert said.splitlines()[-1].startswith("work: 0/7 things, ")
        assert said.splitlines()[-1].endswith(" so far")
        bar.advance(7)
    assert capsys.readouterr().err.splitlines()[-1] == "work: 7/7 things, in 1 s"


def test_what_an_earlier_run_has_done_does_not_make_this_one_seem_fast(clock):
    bar = Bar("work", 100, 80)
    assert bar.seconds_left is None
    clock.now += 30
    bar.advance(5)
    assert bar.seconds_left == pytest.approx(15 * 30 / 5)
    bar.show(90, left=math.inf)
    assert bar.seconds_left is None
    assert bar.state == "90/100"


@pytest.mark.parametrize("shown", [True, False])
def test_a_process_that_is_not_the_first_prints_nothing(shown, capsys):
    with progress_bar("work", 2, shown=shown) as bar:
        bar.line("a line")
        bar.advance(2)
    assert bool(capsys.readouterr().err) == shown


def test_a_bar_on_a_terminal_keeps_brackets_of_what_it_shows(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(progress.sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("work", 2) as bar:
        bar.advance(1, note="[red]3[/red]")
        bar.line("[bold]a line[/bold]")
    assert "[red]3[/red]" in stream.getvalue()
    assert "[bold]a line[/bold]" in stream.getvalue()


class Decoding:
    """Answers in batches: a first forward takes 4 seconds, every other one 1, for all rows."""

    def __init__(self, clock, lengths, most, rows):
        self.clock, self.lengths, self.most, self.rows = clock, lengths, most, rows

    def run(self, answers):
        """Yield the seconds that have gone by, and how far the first answer of a batch is."""
        for first in range(0, len(self.lengths), self.rows):
            batch = range(first, min(first + self.rows, len(self.lengths)))
            for step in range(max(self.lengths[i] for i in batch)):
                self.clock.now += 1 if step else 4
                for i in batch:
                    if step < self.lengths[i]:
                        answers.forward(i, 1, is_first=step == 0)
                        if step == self.lengths[i] - 1:
                            answers.finished(i, at_end=self.lengths[i] < self.most)
                yield step


@pytest.mark.parametrize("kind", ["all are cut", "most end early"])
def test_the_time_left_is_right_before_the_first_answer_is_finished(clock, kind):
    rng = random.Random(3)
    most = 64
    lengths = [most if kind == "all are cut" else rng.randint(10, 40) for _ in range(24)]
    start = clock.now
    slow = Decoding(clock, lengths, most, 8)
    for _ in slow.run(AnswerProgress(Bar("", 24), 24, most)):
        pass
    whole, clock.now = clock.now - start, start
    bar = Bar("collect", 24, unit="prompts")
    ratios, parts = [], []
    for _ in slow.run(AnswerProgress(bar, 24, most)):
        left = whole - (clock.now - start)
        parts.append(bar.part)
        if bar.seconds_left is not None and left > 3:
            ratios.append(bar.seconds_left / left)
    assert len(ratios) > 0.8 * (whole / 4)
    assert 0.3 < min(ratios) <= max(ratios) < 4
    assert parts[1] < parts[2] < parts[3] < parts[4] < 0.2  # it moves with every forward
    assert parts[-1] == 1
    assert bar.done == 24


def test_answers_of_other_processes_count_when_they_are_finished(clock):
    bar = Bar("collect", 10, 2)
    answers = AnswerProgress(bar, 8, 64)
    clock.now += 10
    for i in range(4):
        answers.finished(i, at_end=True)
    assert bar.part == pytest.approx(0.6)
    assert bar.seconds_left == pytest.approx(10)


# What a training says


def test_a_short_training_says_in_lines_how_it_goes_and_what_came_out(
    toy, packed, tmp_path, capsys, caplog
):
    caplog.set_level("INFO")
    out = small_run(toy, packed, tmp_path, max_steps=6, eval_steps=3, save_steps=3)
    said = capsys.readouterr()
    assert "{" not in said.out + said.err
    assert said.out == ""
    steps = [line for line in said.err.splitlines() if line.startswith("step ")]
    for number in range(1, 7):
        [line] = [x for x in steps if x.startswith(f"step {number} of 6: loss ")]
        assert "AR " in line
        assert "consistency " in line
        assert line.endswith(" left") == (number < 6)
    assert sum(": test: " in line for line in steps) == 2
    logged = caplog.text
    for text in ("before: 1.", "after:  ", "AR loss ", f"wrote {out}: weights of ", "the best of"):
        assert text in logged
    page = (out / "training.html").read_text()
    [path] = [x for x in page.split("<section>") if ">AR loss<" in x]
    assert path.count("<circle") == 6


@pytest.mark.parametrize(
    ("settings", "steps", "interval"),
    [
        ({"max_steps": 4}, 4, 1),
        ({"max_steps": 100}, 100, 5),
        ({"max_steps": 4000}, 4000, 25),
        ({"max_steps": 4000, "save_steps": 10}, 4000, 10),
        ({"batch_size": 4, "epochs": 2.5}, 20, 1),
        ({"batch_size": 4, "gradient_accumulation": 3}, 3, 1),
    ],
)
def test_a_curve_has_points_however_short_the_training(settings, steps, interval):
    config = train_config("-", "-", **settings)
    assert num_steps(config, 30) == steps
    arguments = training_arguments(config, on_cpu=True, num_sequences=30)
    assert arguments.logging_steps == interval


@pytest.mark.parametrize(("count", "kept"), [(24, 6), (7, 1), (2, 1), (130, 32)])
def test_no_more_than_a_quarter_of_the_prompts_are_kept_for_tests(count, kept, caplog):
    caplog.set_level("INFO")
    sequences = random_packed(1, count, BLOCK)
    training, prompts = judge._hold_out(train_config("-", "-"), sequences, 32)
    assert len(prompts) == kept
    assert len(training) == count - kept
    num_texts = len({tuple(s[0].prompt.tolist()) for s in sequences})
    assert f"{kept} of {num_texts} prompts are kept out of training" in caplog.text
    assert ("packed:32 asks for 32" in caplog.text) == (kept < 32)


def test_settings_that_nobody_chose_for_this_size_are_named(tmp_path):
    facts = {"num_parameters": 135_000_000, "num_steps": 3, "block_size": 16}
    note = untuned(train_config("-", "-"), **facts)
    for text in ("135 million", "learning rate 1e-05", "AR weight 10", "3 steps", "block size 16"):
        assert text in note
    assert "\n" not in note
    given = {"learning_rate": 1e-5, "max_steps": 3, "ar_weight": 10.0}
    assert untuned(train_config("-", "-", **given), **facts | {"block_size": 8}) is None
    assert "learning rate" not in untuned(train_config("-", "-", learning_rate=1e-5), **facts)
    large = facts | {"num_parameters": 7_600_000_000}
    assert untuned(train_config("-", "-"), **large) is None
    assert "1e-4" in untuned(train_config("-", "-", lora_rank=8), **large)


def test_a_recipe_with_members_still_knows_what_was_chosen(tmp_path):
    path = tmp_path / "recipe.toml"
    text = 'model = "m"\nout = "o"\nmembers = 2\n[collect]\nprompts = "self:4"\n[train]\n'
    path.write_text(text + "ar_weight = 3.0\n")
    for config in read_recipe(path).rounds[0].trains:
        assert "ar_weight" in config.given
        assert "learning_rate" not in config.given


def test_a_finished_training_says_that_nothing_is_left_to_do(toy, packed, tmp_path, caplog):
    caplog.set_level("INFO")
    for _ in range(2):
        small_run(toy, packed, tmp_path, max_steps=1)
    assert caplog.text.count("is trained already") == 1
