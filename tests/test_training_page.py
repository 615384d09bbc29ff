"""The page of a training draws what the log says, all of it, and nothing else."""

import itertools
import re
from html.parser import HTMLParser

import pytest

from jacobi_forcing.drawing.chart import ticks_around
from jacobi_forcing.drawing.training import charts_of, write_training_page

TEST = {"tokens_per_forward": 1.0, "accuracy": 0.9, "drift": 0.0, "score": 1.0}


def record(**settings):
    log = []
    for step in (5, 10, 15, 20):
        line = {"ar_loss": 1 / step, "consistency_loss": 2.0, "agreement": 0.5}
        log.append({"step": step, **line, "learning_rate": 1e-5, "grad_norm": float("nan")})
        found = {**TEST, "tokens_per_forward": 1 + step / 10, "accepted_at_1": 0.4}
        log.append({"step": step} | {f"eval_{name}": x for name, x in found.items()})
    usual = {"model": "toy", "max_accuracy_drop": 0.01, "max_nll_rise": 0.1, "lora_rank": 0}
    usual |= {"batch_size": 4, "gradient_accumulation": 2, "states": "recorded"}
    usual |= {"mask": "windowed", "teacher": "self", "eval_strategy": "window"}
    return {
        "settings": usual | settings,
        "log": log,
        "steps": 20,
        "num_sequences": 7,
        "before": {**TEST, "accepted_at_1": 0.1},
        "after": {**TEST, "tokens_per_forward": 2.5},
        "best_checkpoint_step": 15,
    }


def classes(attrs):
    return (attrs.get("class") or "").split()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_every_value_of_the_log_is_drawn_where_it_belongs(tmp_path):
    path = tmp_path / "training.html"
    write_training_page(path, record())
    tags = Page(path.read_text()).tags
    lines = [attrs["points"] for _, attrs in tags if "series" in classes(attrs)]
    charts = charts_of(record())
    assert [c.title for c in charts][:2] == ["AR loss", "Consistency loss"]
    assert len(lines) == len(charts) == 9
    speed = [[float(x) for x in pair.split(",")] for pair in lines[5].split()]
    assert len(speed) == 5  # before training, and four evaluations
    steps = [x for x, _ in speed]
    assert [b - a for a, b in itertools.pairwise(steps)] == pytest.approx([101.5] * 4)
    assert all(b < a for (_, a), (_, b) in itertools.pairwise(speed))  # up is less y
    assert lines[4] == ""  # gradient norms that are not finite have no place
    inside = [(float(x), float(y)) for line in lines for x, y in re.findall(r"(\S+),(\S+)", line)]
    assert all(0 <= x <= 480 and 0 <= y <= 230 for x, y in inside)


def test_a_page_needs_nothing_from_outside_and_no_name_becomes_markup(tmp_path):
    path = tmp_path / "training.html"
    write_training_page(path, record(model="<script>alert(1)</script>{{charts}}"))
    text = path.read_text()
    assert "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text)
    assert "<script>alert(1)</script>{{charts}}" in Page(text).text


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.13, 0.9), (3.1, 3.1), (0, 0), (1e-6, 1e-5), (-3, 70000)]
)
def test_ticks_are_few_and_lie_around_the_values(low, high):
    ticks = ticks_around(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert ticks[0] < ticks[-1]
