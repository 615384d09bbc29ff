"""Evaluating: what is counted, beside a slow obvious count; stopped and gone on with; its page."""

import io
import json
import shutil
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from rich.console import Console
from toys import save_toy, toy_tokenizer

from jacobi_forcing.cli import main
from jacobi_forcing.config import CompareConfig, DecoderConfig, EvaluateConfig
from jacobi_forcing.data.files import alone_in
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE, compare, take_turns
from jacobi_forcing.drawing.evaluation import table, write_evaluation_page
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.evaluation.answers import Answers, file_name
from jacobi_forcing.evaluation.statistics import mcnemar, percentile, ratio_error, wilson
from jacobi_forcing.evaluation.summary import against, summarize
from jacobi_forcing.evaluation.tasks import OwnTask, PublishedTask, Verdict, read_problem_task
from jacobi_forcing.models import load_model
from jacobi_forcing.problems.published import Question
from jacobi_forcing.progress import AnswerProgress
from jacobi_forcing.stages import compare as compare_stage
from jacobi_forcing.stages import evaluate

DECODERS = [
    AUTOREGRESSIVE,
    DecoderConfig(block_size=6),
    DecoderConfig(strategy="jacobi", block_size=4),
]
FIGURES = {"num_tokens", "num_forwards", "tokens_per_forward", "accuracy", "acceptance"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two toys with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    return [save_toy(folder / f"toy-{seed}", seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def model(models):
    return load_model(str(models[0]))


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    lines = [{"prompt": f"w{i} w{i + 5} w{2 * i}", "check": {"answer": "1"}} for i in range(2, 12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def settings(models, problems, **more):
    values = {
        "model": str(models[0]),
        "problems": str(problems),
        "strategies": "window,jacobi",
        "block_size": 5,
        "max_new_tokens": 20,
        "device": "cpu",
        "tuning": "none",
    }
    return EvaluateConfig(**values | more)


@pytest.fixture
def half(monkeypatch):
    """Let some texts be right: by their length, so that two models may disagree."""

    def judge(self, answers):
        return [Verdict(len(text) % 2 == 0, "by its length") for _, text in answers]

    monkeypatch.setattr(OwnTask, "judge", judge)


# Taking turns


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_answers_do_not_depend_on_what_is_decoded_together(model, batch_size):
    prompts = [[i, i + 3, 2 * i] for i in range(2, 9)]
    alone = compare(model, prompts, DECODERS, max_new_tokens=15)
    found = [[] for _ in DECODERS]
    turns = take_turns(model, prompts, DECODERS, max_new_tokens=15, batch_size=batch_size)
    groups = []
    for group, runs in turns:
        groups.append(group)
        for own, new in zip(found, runs, strict=True):
            own += new
            assert len({run.all_seconds for run in new}) == 1
            assert all(run.num_together == len(group) for run in new)
    assert [i for group in groups for i in group] == list(range(len(prompts)))
    for runs, expected in zip(found, alone, strict=True):
        for run, one in zip(runs, expected, strict=True):
            assert run.answer == one.answer == alone[0][expected.index(one)].answer
            assert (run.settled, run.right, run.reason) == (one.settled, one.right, one.reason)
            assert sum(run.settled) == len(run.answer)
            assert 0 < run.first_seconds <= run.seconds <= run.all_seconds
    assert all(run.num_forwards == len(run.answer) for run in found[0])
    assert sum(map(lambda run: run.num_forwards, found[1])) < sum(
        run.num_forwards for run in found[0]
    )


def test_turns_go_on_where_they_were_stopped(model):
    prompts = [[i, i + 3] for i in range(2, 9)]
    whole = [runs for _, runs in take_turns(model, prompts, DECODERS, max_new_tokens=9)]
    rest = [runs for _, runs in take_turns(model, prompts, DECODERS, max_new_tokens=9, first=4)]
    assert len(rest) == 3
    for mine, expected in zip(rest, whole[4:], strict=True):
        assert [r[0].settled for r in mine] == [r[0].settled for r in expected]
    assert not list(take_turns(model, prompts, DECODERS, max_new_tokens=9, first=7))


# Counting


def run(answer, settled, right=None, proposed=None, seconds=1.0, solved=True):
    return {
        "answer": answer,
        "settled": settled,
        "right": right or [n - 1 for n in settled],
        "proposed": proposed or [4] * len(settled),
        "reason": "eos",
        "first_seconds": seconds / 4,
        "seconds": seconds,
        "all_seconds": seconds,
        "num_together": 1,
        "text": "",
        "why": "",
        "solved": solved,
    }


def records_of(*pairs):
    return [
        {"id": str(i), "prompt": "", "reference": "", "prompt_ids": prompt, "answers": answers}
        for i, (prompt, answers) in enumerate(pairs)
    ]


def test_tokens_per_forward_are_split_by_what_the_text_has_said_before():
    first, again = list(range(10, 20)), list(range(10, 20))
    answer = [*first, 50, *again]
    settled = [1, 4, 5, 1, 3, 7]
    records = records_of(([2, 3], {"ar": run(answer, [1] * 21), "w": run(answer, settled)}))
    found = summarize(records, "w", "ar")
    # The last 8 of 10 repeated tokens... the first 7 of them do not end an 8-gram seen before.
    repeats = [False] * (10 + 1 + 7) + [True] * 3
    forwards, place = {True: 0.0, False: 0.0}, 0
    for n in settled:
        for is_repeat in repeats[place : place + n]:
            forwards[is_repeat] += 1 / n
        place += n
    assert found["repeating_share"] == 3 / 21
    assert found["tokens_per_forward_repeating"] == pytest.approx(3 / forwards[True])
    assert found["tokens_per_forward_new"] == pytest.approx(18 / forwards[False])
    assert sum(forwards.values()) == pytest.approx(len(settled))
    assert found["tokens_per_forward"] == 21 / 6


def test_acceptance_counts_drafts_that_were_long_enough():
    drafts = {"proposed": [0, 2, 4, 4], "right": [0, 2, 1, 3]}
    records = records_of(([2], {"w": run([5] * 10, [1, 3, 2, 4], **drafts)}))
    assert summarize(records, "w", "w")["acceptance"] == [3 / 3, 2 / 3, 1 / 2, 0 / 2]
    nothing = records_of(([2], {"w": run([5], [1], right=[0], proposed=[0])}))
    assert summarize(nothing, "w", "w")["acceptance"] == []


def test_seconds_are_compared_with_the_prefill_and_without():
    mine = [run([5] * 4, [2, 2], seconds=s) for s in (1.0, 2.0, 4.0)]
    ar = [run([5] * 4, [1] * 4, seconds=s) for s in (2.0, 6.0, 4.0)]
    pairs = zip(mine, ar, strict=True)
    found = summarize(records_of(*(([2], {"w": a, "ar": b}) for a, b in pairs)), "w", "ar")
    assert found["speedup"] == 12 / 7
    assert (found["speedup_low"], found["speedup_median"], found["speedup_high"]) == (1, 2, 3)
    assert found["tokens_per_second"] == 12 / 7
    assert found["tokens_per_second_after_prefill"] == pytest.approx(6 / (7 * 3 / 4))
    assert found["first_token_p50"] == 0.5
    assert found["seconds_p95"] == 4.0


def test_only_solved_answers_count_where_only_they_are_asked_for():
    answers = [run([5] * 6, [3, 3], solved=False), run([5] * 4, [1, 1, 1, 1], solved=True)]
    found = summarize(records_of(*(([2], {"w": one}) for one in answers)), "w", "w")
    assert found["tokens_per_forward_solved"] == 1.0
    assert found["tokens_per_forward"] == 10 / 6
    assert found["accuracy"] == 0.5
    low, high = wilson(1, 2)
    assert (found["accuracy_low"], found["accuracy_high"]) == (low, high)
    none = summarize(records_of(([2], {"w": run([5], [1], solved=False)})), "w", "w")
    assert none["tokens_per_forward_solved"] is None


@pytest.mark.parametrize(
    ("pair", "p_value"),
    # Of the binomial distribution by hand: 2 * P(X <= 1 | 10, 1/2) = 22 / 1024, and so on.
    [((0, 0), 1.0), ((5, 0), 2 / 32), ((1, 9), 22 / 1024), ((3, 3), 1.0), ((0, 1), 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(pair, p_value):
    assert mcnemar(*pair) == pytest.approx(p_value)
    assert mcnemar(*reversed(pair)) == pytest.approx(p_value)


def test_the_original_is_compared_problem_by_problem():
    verdicts = [(True, True)] * 3 + [(True, False)] * 2 + [(False, True)] * 4 + [(False, False)]
    records = records_of(
        *(
            ([2], {"w": run([5], [1], solved=mine), "original": run([5], [1], solved=theirs)})
            for mine, theirs in verdicts
        )
    )
    found = against(records, "w", "original")
    assert found["original_accuracy"] == 7 / 10
    assert (found["only_solved_here"], found["only_solved_by_original"]) == (2, 4)
    assert found["accuracy_change"] == pytest.approx(-0.2)
    assert found["p_value"] == mcnemar(2, 4)


def test_percentiles_and_errors():
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([1], 95) == 1
    assert percentile(list(range(1, 101)), 95) == 95
    assert ratio_error([4, 4], [2, 2]) == 0
    assert ratio_error([4, 0], [1, 1]) == pytest.approx((2 * 2**2) ** 0.5 / 2)


# The stage


def test_every_answer_is_kept_and_counted(models, problems, tmp_path, half):
    out = tmp_path / "out"
    summary = evaluate.run(settings(models, problems, original=str(models[1]), out=str(out)))
    assert summary == json.loads((out / "summary.json").read_text())
    records = [json.loads(path.read_text()) for path in (out / "problems").iterdir()]
    assert sorted(one["id"] for one in records) == sorted(f"line/{i}" for i in range(1, 11))
    names = ["autoregressive", "window", "jacobi", "original"]
    for one in records:
        assert list(one["answers"]) == names
        ids = [one["answers"][name]["answer"] for name in names]
        assert ids[0] == ids[1] == ids[2]
    original = load_model(str(models[1]))
    for one in records[:3]:
        (alone,) = compare(original, [one["prompt_ids"]], [AUTOREGRESSIVE], max_new_tokens=20)[0]
        assert one["answers"]["original"]["answer"] == alone.answer
    counts = Counter(
        (one["answers"]["window"]["solved"], one["answers"]["original"]["solved"])
        for one in records
    )
    assert summary["strategy"] == "window"
    assert summary["num_mismatches"] == 0
    assert summary["only_solved_here"] == counts[True, False]
    assert summary["only_solved_by_original"] == counts[False, True]
    assert counts[True, False] + counts[False, True] > 0
    assert 0 < summary["accuracy"] < 1
    assert list(summary["decoders"]) == names[:3]
    assert summary["decoders"]["autoregressive"]["tokens_per_forward"] == 1.0
    assert summary["tokens_per_forward"] > 1.0


def test_without_a_folder_the_same_figures_are_printed(models, problems, tmp_path, half, capsys):
    kept = evaluate.run(settings(models, problems, out=str(tmp_path / "out")))
    capsys.readouterr()
    evaluate.run(settings(models, problems))
    printed = json.loads(capsys.readouterr().out)
    for name in FIGURES & set(printed):
        assert printed[name] == kept[name]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_it_goes_on_where_it_was_stopped(models, problems, tmp_path, monkeypatch, batch_size):
    more = {"batch_size": batch_size, "original": str(models[1])}
    whole = evaluate.run(settings(models, problems, out=str(tmp_path / "whole"), **more))
    out, kept = tmp_path / "out", Answers.add

    def stopped(self, new):
        if len(self.records) == 5:
            raise KeyboardInterrupt
        kept(self, new)

    monkeypatch.setattr(Answers, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(settings(models, problems, out=str(out), **more))
    assert not (out / "summary.json").exists()
    before = {path: path.read_bytes() for path in (out / "problems").iterdir()}
    assert len(before) == 5
    monkeypatch.setattr(Answers, "add", kept)
    again = evaluate.run(settings(models, problems, out=str(out), **more))
    assert all(path.read_bytes() == text for path, text in before.items())
    for name, figures in whole["decoders"].items():
        for figure in FIGURES:
            assert again["decoders"][name][figure] == figures[figure]


def test_more_problems_may_follow_and_nothing_else_may_change(models, problems, tmp_path):
    out = tmp_path / "out"
    assert evaluate.run(settings(models, problems, out=str(out), limit=3))["num_problems"] == 3
    assert evaluate.run(settings(models, problems, out=str(out)))["num_problems"] == 10
    with pytest.raises(ConfigError, match="was begun with max_new_tokens = 20, now it is 21"):
        evaluate.run(settings(models, problems, out=str(out), max_new_tokens=21))


@pytest.mark.parametrize("stopped_after", [0, 1, 2, 3])
def test_more_bundled_problems_may_follow_and_be_interrupted(
    models, tmp_path, monkeypatch, half, stopped_after
):
    """The kinds lie one behind the other, so a larger limit leaves gaps between the answers."""
    more = {"problems": "bundled", "max_new_tokens": 3, "block_size": 4}
    whole = evaluate.run(settings(models, **more, limit=10, out=str(tmp_path / "whole")))
    out, kept = tmp_path / "out", Answers.add
    assert evaluate.run(settings(models, **more, limit=6, out=str(out)))["num_problems"] == 6
    before = {path: path.read_bytes() for path in (out / "problems").iterdir()}

    def stopped(self, new):
        if len(self.records) == 6 + stopped_after:
            raise KeyboardInterrupt
        kept(self, new)

    monkeypatch.setattr(Answers, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(settings(models, **more, limit=10, out=str(out)))
    monkeypatch.setattr(Answers, "add", kept)
    again = evaluate.run(settings(models, **more, limit=10, out=str(out)))
    assert len(before) == 6
    assert all(path.read_bytes() == text for path, text in before.items())
    for name in ("problem_set", "num_problems", "num_tokens", "accuracy", "ids_digest"):
        assert again[name] == whole[name]
    for path in (out / "problems").iterdir():  # every verdict lies with its own problem
        mine, expected = (
            json.loads(one.read_text()) for one in (path, tmp_path / "whole/problems" / path.name)
        )
        assert mine["prompt_ids"] == expected["prompt_ids"]
        for name, answer in mine["answers"].items():
            assert answer["answer"] == expected["answers"][name]["answer"]
            assert answer["solved"] == expected["answers"][name]["solved"]


def test_an_answer_that_is_missing_is_given_again_and_no_other(models, problems, tmp_path):
    out = tmp_path / "out"
    first = evaluate.run(settings(models, problems, out=str(out)))
    before = {path: path.read_bytes() for path in (out / "problems").iterdir()}
    lost = [out / "problems" / f"{file_name(f'line/{i}')}.json" for i in (2, 5, 6)]
    for path in lost:
        path.unlink()
    again = evaluate.run(settings(models, problems, out=str(out)))
    assert again["ids_digest"] == first["ids_digest"]
    assert all(path.read_bytes() == text for path, text in before.items() if path not in lost)
    assert all(path.exists() for path in lost)


CHECKS = [
    {"answer": "2"},
    {"function": "f", "tests": [[[1], 2]]},
    {"function": "f", "tests": [[[1], 3]]},
]


def test_an_answer_that_other_checks_judged_is_refused(models, tmp_path, refused):
    path, out = tmp_path / "own.jsonl", tmp_path / "out"

    def with_check(check):
        path.write_text(json.dumps({"prompt": "w2 w7 w4", "check": check}) + "\n")
        return settings(models, path, allow_code_execution=True, max_new_tokens=3, out=str(out))

    sets = set()
    for check in CHECKS:
        shutil.rmtree(out, ignore_errors=True)
        sets.add(evaluate.run(with_check(check))["problem_set"])
        same = dict(reversed(check.items()))  # the order of keys decides nothing
        assert evaluate.run(with_check(same))["problem_set"] in sets
        for other in CHECKS:
            if other != check:
                message = "line/1 was judged by another answer or by other tests than it has now"
                with pytest.raises(DataError, match=message) as error:
                    evaluate.run(with_check(other))
                assert "\n" not in str(error.value)
    assert len(sets) == len(CHECKS)


def test_a_published_problem_with_other_tests_is_another_one():
    question = Question("HumanEval/0", "code", "def f(x):\n", "", {"entry_point": "f", "test": "a"})
    other = replace(question, fields=question.fields | {"test": "b"})
    asked = SimpleNamespace(
        tokenizer=toy_tokenizer(), context_tokens=9999, name="toy", vocab_tokens=99
    )
    config = EvaluateConfig(problems="gsm8k", style="completion")
    keys, checks = set(), set()
    reworded = replace(question, text="def f(y):\n")
    plus = replace(question, edition="HumanEval+")
    for one in (question, other, replace(question, reference="pass"), reworded, plus):
        task = PublishedTask("gsm8k", [one], config)
        (item,) = task.items(asked, None)
        keys.add(task.key(item))
        checks.add(item.check)
    assert task.facts["benchmark"] == "HumanEval+"
    assert len(keys) == 4
    assert len(checks) == 2


def test_a_thought_that_the_chat_template_began_is_no_answer():
    tokenizer = load_model("tiny-base").tokenizer
    asked = SimpleNamespace(tokenizer=tokenizer, context_tokens=9999, name="tiny", vocab_tokens=99)
    question = Question("gsm8k/1", "math", "a", "", {"answer": "18"})
    answers = ["maybe 18", "7</think>18", "18</think>7"]
    found = []
    for end in ("<think>\n", "<think>\n\n</think>\n"):
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}" + end
        task = PublishedTask("gsm8k", [question], EvaluateConfig(problems="gsm8k", style="chat"))
        task.items(asked, None)
        found.append([task.judge([(0, text)])[0].solved for text in answers])
    assert found == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_run_is_not_continued_on_another_machine(name, models, problems, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    evaluate.run(settings(models, problems, out=out, limit=1))
    here = evaluate.hardware()
    monkeypatch.setattr(evaluate, "hardware", lambda: here | {name: "another"})
    for limit in (1, 2):
        with pytest.raises(ConfigError, match=f"was begun with {name} = "):
            evaluate.run(settings(models, problems, out=out, limit=limit))


def test_what_runs_code_is_refused_before_the_set_is_fetched(monkeypatch):
    monkeypatch.setattr("jacobi_forcing.evaluation.tasks.load", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ConfigError, match="--allow-code-execution"):
        read_problem_task(EvaluateConfig(problems="humaneval"))


def test_answers_of_earlier_versions_say_nothing_of_their_check(models, problems, tmp_path):
    out = tmp_path / "out"
    first = evaluate.run(settings(models, problems, out=str(out), limit=2))
    for path in (out / "problems").iterdir():
        found = json.loads(path.read_text())
        assert len(found.pop("check")) == 16
        path.write_text(json.dumps(found))
    assert evaluate.run(settings(models, problems, out=str(out), limit=2)) is not None
    assert len(list((out / "problems").iterdir())) == first["num_problems"] == 2


def test_a_model_that_was_trained_on_is_another_one(models, problems, tmp_path):
    folder = shutil.copytree(models[0], tmp_path / "model")
    evaluate.run(settings([folder], problems, out=str(tmp_path / "out"), limit=1))
    shutil.copy(models[1] / "model.safetensors", folder)
    with pytest.raises(ConfigError, match="was begun with weights"):
        evaluate.run(settings([folder], problems, out=str(tmp_path / "out"), limit=2))


def test_answers_of_another_run_are_refused(models, problems, tmp_path):
    out = tmp_path / "out"
    evaluate.run(settings(models, problems, out=str(out), limit=2))
    path = out / "problems" / f"{file_name('line/2')}.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"prompt_ids": [7]}))
    with pytest.raises(DataError, match="is no answer to line/2 as it is asked now"):
        evaluate.run(settings(models, problems, out=str(out), limit=2))
    del found["answers"]["jacobi"]
    path.write_text(json.dumps(found))
    with pytest.raises(DataError, match="has no answer of jacobi"):
        evaluate.run(settings(models, problems, out=str(out), limit=2))
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        evaluate.run(settings(models, problems, out=str(out), limit=2))


def test_different_ids_have_different_files():
    names = ["a/b", "a-b", "a b", "A/b", "x" * 200, "x" * 201, "../../etc", "test/algebra/1.json"]
    files = [file_name(name) for name in names]
    assert len({name.lower() for name in files}) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in files)
    assert file_name("plain-1.2") == "plain-1.2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--strategies", "window,window"), "--strategies names 'window'; write some of jacobi"),
        (("--strategies", "window, jakobi"), "--strategies names 'jakobi'"),
        (("--strategies", "beam"), "--strategies names 'beam'"),
        (("--batch-size", "0"), "--batch-size is 0, must be at least 1"),
        (("--style", "poem"), "invalid choice: 'poem'"),
        (("--problems", "gsm9k"), "gsm9k: no such problems. Write bundled"),
        (("--problems", "humaneval:no.jsonl"), "no.jsonl"),
    ],
)
def test_bad_settings_are_refused(flags, message, models, problems, capsys):
    base = ["evaluate", "--model", str(models[0]), "--problems", str(problems)]
    try:
        code = main([*base, *flags])
    except SystemExit as error:
        code = error.code
    assert code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line


def test_a_file_in_the_folders_place_is_refused_before_the_work(models, problems, refused):
    line = refused(
        "evaluate", "--model", models[0], "--problems", problems, "--out", problems, "--limit", "1"
    )
    assert f"--out: {problems} is a file" in line


def test_two_processes_do_not_measure_each_other(models, problems, tmp_path, refused):
    out = tmp_path / "out"
    same = ["--model", models[0], "--problems", problems, "--out", out, "--device", "cpu"]
    with alone_in(out, "evaluate.lock"):
        line = refused("evaluate", *same)
        assert f"{out}: another process is at work in this folder" in line
        assert sorted(path.name for path in out.iterdir()) == ["evaluate.lock"]
    assert main(["evaluate", *map(str, same), "--max-new-tokens", "3", "--block-size", "4"]) == 0
    assert (out / "summary.json").exists()


# What was cut off


def test_answers_that_were_cut_off_are_counted_and_named(models, problems, tmp_path, capsys):
    out = tmp_path / "out"
    summary = evaluate.run(settings(models, problems, out=str(out), max_new_tokens=5))
    printed = capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in (out / "problems").iterdir()]
    for name, figures in summary["decoders"].items():
        cut = [r for r in records if r["answers"][name]["reason"] == "length"]
        assert figures["num_cut_off"] == len(cut) > 5
        assert figures["cut_off_share"] == len(cut) / 10
        assert figures["longest_cut_off_tokens"] == 5
    sentence = f"{len(cut)} of 10 answers were cut off at 5 tokens: raise --max-new-tokens."
    assert sentence in printed
    assert f"{10 * len(cut)}%" in printed
    page = Page((out / "report.html").read_text())
    assert sentence in page.text
    assert f"{len(cut)} ({len(cut) / 10:.0%})" in page.text
    assert f"{len(cut)} of 10" in page.text
    assert "5 tokens, cut off" in page.text


def test_a_context_that_ends_is_no_reason_to_raise_the_limit(models, problems, capsys):
    evaluate.run(settings(models, problems, max_new_tokens=4000, limit=1, strategies="window"))
    told = capsys.readouterr().err
    assert "1 of 1 answers was" in told
    assert "cut off where the model's context ends." in told
    assert "raise --max-new-tokens" not in told


def test_nothing_is_called_unsolved_where_nothing_is_checked(models, tmp_path, capsys):
    out = tmp_path / "out"
    asked = {"self_prompt_tokens": 4, "max_new_tokens": 6, "out": str(out)}
    evaluate.run(settings(models, "self:3", **asked))
    printed = capsys.readouterr().out
    page = Page((out / "report.html").read_text())
    assert "NLL" in printed
    assert "cut\noff" not in printed
    for text in (printed, page.text):
        assert "solved" not in text.lower()
        assert "accuracy" not in text
        assert "raise --max-new-tokens" not in text


@pytest.mark.parametrize("batch_size", [1, 3])
def test_progress_follows_tokens_and_knows_what_is_left(models, problems, monkeypatch, batch_size):
    parts, totals = [], []

    class Watched(AnswerProgress):
        def _show(self):
            super()._show()
            parts.append(self.bar.part)
            totals.append((self.num_tokens, self.tokens_left(), self.bar.done, self.bar.total))

    monkeypatch.setattr(evaluate, "AnswerProgress", Watched)
    monkeypatch.setattr("jacobi_forcing.decoding.compare._TELL_SECONDS", 0.0)
    summary = evaluate.run(settings(models, problems, batch_size=batch_size))
    assert parts[-1] == 1
    assert sorted(parts) == parts or batch_size > 1
    num_tokens, left, done, total = totals[-1]
    assert left == 0
    assert done == total == 3 * (10 + batch_size)  # three decoders, and a warm-up of each
    counted = sum(figures["num_tokens"] for figures in summary["decoders"].values())
    assert num_tokens > counted
    # Long before the first problem is done, the rest is known about.
    tokens, left, done, _ = totals[len(totals) // 20]
    assert done <= 3 * batch_size
    assert num_tokens / 2 < tokens + left < num_tokens * 2


# Evaluations beside each other


def test_evaluations_of_the_same_problems_are_compared(models, problems, tmp_path, half, capsys):
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for model, out in zip(models, folders, strict=True):
        evaluate.run(settings([model], problems, out=out))
    html = str(tmp_path / "page.html")
    lines = compare_stage.run(CompareConfig(reports=tuple(folders), html=html))
    assert len(lines) == 6
    printed = capsys.readouterr().out
    page = Page((tmp_path / "page.html").read_text())
    assert not page.open
    for line in lines:
        assert f"{line.figures['tokens_per_forward']:.2f}" in printed
        assert line.name in page.text
    assert "\u2026" not in printed  # long paths cut no figure off
    again = compare_stage.run(CompareConfig(reports=(folders[0], f"{folders[0]}/summary.json")))
    assert len({line.name for line in again}) == 6  # of one model: told apart by their places
    assert "Asked in different ways" not in printed
    shorter = str(tmp_path / "shorter")
    evaluate.run(settings(models[:1], problems, out=shorter, max_new_tokens=7))
    capsys.readouterr()
    compare_stage.run(CompareConfig(reports=(folders[0], shorter), html=html))
    page = Page((tmp_path / "page.html").read_text())
    assert "Asked in different ways" in page.text
    assert f"{models[0]} ({shorter}): up to 7 tokens, dtype auto" in page.text


def test_what_cannot_be_compared_is_refused(models, problems, tmp_path, refused):
    one, two, broken = (tmp_path / name for name in ("one", "two", "broken.json"))
    evaluate.run(settings(models, problems, out=str(one)))
    evaluate.run(settings(models, problems, out=str(two), limit=3))
    line = refused("compare", one, two)
    assert f"{two} answers other problems than {one}: 3 of {problems}, and 10 of" in line
    broken.write_text("[]")
    assert "is no summary of an evaluation: it has no 'model'" in refused("compare", one, broken)
    assert "cannot read" in refused("compare", tmp_path / "none")
    assert "--html: . is a folder" in refused("compare", one, "--html", ".")


# The page


class Page(HTMLParser):
    """Its text, and whether every element that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.tags = "", [], Counter()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in ("meta", "link", "br", "line", "circle", "path", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle", "path", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def many(count):
    """Records of many problems, as long as real ones; some texts are markup."""
    for i in range(count):
        settled = [1 + (i + k) % 7 for k in range(60)]
        answer = [(i * k) % 500 for k in range(sum(settled))]
        text = f"<script>alert({i})</script> & " + "x = 1\n" * 100
        answers = {
            "autoregressive": run(answer, [1] * len(answer), seconds=2.0, solved=i % 9 > 0),
            "window": run(answer, settled, seconds=1.0, solved=i % 9 > 0),
            "original": run(answer, [1] * len(answer), seconds=2.0, solved=i % 8 > 0),
        }
        for one in answers.values():
            one["text"] = text
        asked = {"id": f"x/{i}", "prompt": text, "reference": text, "prompt_ids": [5] * 100}
        yield asked | {"answers": answers}


def summary_of(records):
    found = {}
    for name in ("autoregressive", "window"):
        found[name] = summarize(records, name, "autoregressive")
        found[name] |= against(records, name, "original")
    return {
        "model": "<b>m</b>",
        "problems": "humaneval",
        "benchmark": "HumanEval",
        "style": "chat",
        "sandbox": "no network",
        "strategy": "window",
        "num_problems": len(records),
        **found["window"],
        "decoders": found,
        "settings": {"batch_size": 1},
        "hardware": {"gpu": None, "cpu": "a CPU", "torch_threads": 1},
    }


def test_the_page_says_what_the_summary_says_and_runs_nothing(tmp_path):
    records = list(many(40))
    summary = summary_of(records)
    write_evaluation_page(tmp_path / "page.html", summary, records)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.tags["script"] == page.tags["b"] == 0
    assert "default-src 'none'" in text
    for figures in summary["decoders"].values():
        assert f"{figures['tokens_per_forward']:.2f}" in page.text
        assert f"{figures['accuracy']:.1%}" in page.text
        assert f"{figures['speedup_median']:.2f}x" in page.text
        assert f"(p = {figures['p_value']:.2g})" in page.text
    assert "alert(9)" in page.text  # not solved here: among the worst cases
    assert page.text.index("x/9 ") < page.text.index("x/0 ")  # the original solves 9, and 0 not


def test_the_table_fits_into_eighty_columns():
    summary = summary_of(list(many(40)))
    console = Console(width=80, file=io.StringIO())
    summary["decoders"]["window"] |= {"p_value": 0.35, "num_cut_off": 40, "cut_off_share": 1.0}
    console.print(table(summary))
    assert "(p 0.35)" in console.file.getvalue()
    assert "\u2026" not in console.file.getvalue()  # all columns fit into 80


def test_five_thousand_problems_make_a_small_page_soon(tmp_path):
    records = list(many(5000))
    begin = time.perf_counter()
    summary = summary_of(records)
    write_evaluation_page(tmp_path / "page.html", summary, records)
    assert time.perf_counter() - begin < 20
    assert (tmp_path / "page.html").stat().st_size < 5_000_000
