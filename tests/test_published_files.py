"""The published sets are found where they may be, and nothing else is taken for them."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from published import DATA, FILES, all_questions, asked_questions

from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.problems.published import SETS, load, sources
from jacobi_forcing.problems.published.sources import read_lines


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_found_by_file_in_the_folder_and_on_the_hub(name, tmp_path, monkeypatch):
    wanted = asked_questions(name)
    monkeypatch.setenv("JACOBI_DATA", str(tmp_path))  # empty: the named file comes first
    assert load(name, FILES[name]) == wanted
    monkeypatch.setenv("JACOBI_DATA", str(DATA))
    assert load(name) == wanted
    opened = gzip.open if FILES[name].suffix == ".gz" else open
    with opened(FILES[name], "rb") as file:
        text = file.read()
    plain = tmp_path / FILES[name].name.removesuffix(".gz")
    plain.write_bytes(text)
    monkeypatch.setenv("JACOBI_DATA", str(tmp_path))
    assert load(name) == wanted
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(text))
    plain.unlink()
    assert load(name) == wanted

    monkeypatch.delenv("JACOBI_DATA")
    records = [json.loads(line) for line in text.splitlines()]
    monkeypatch.setattr(sources, "load_from_hub", lambda source: records)
    assert load(name) == wanted


def test_without_files_and_network_the_folder_is_named():
    code = "from jacobi_forcing.problems.published import load; load('gsm8k')"
    offline = {k: v for k, v in os.environ.items() if k != "JACOBI_DATA"} | {"HF_HUB_OFFLINE": "1"}
    offline |= {"HF_HOME": "/nonexistent", "HF_DATASETS_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("jacobi_forcing.errors.DataError: openai/gsm8k: cannot be loaded")
    assert last.endswith("Set JACOBI_DATA to a folder that holds gsm8k/test.jsonl.")


def test_a_folder_without_the_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("JACOBI_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"neither humaneval/HumanEval.jsonl.gz nor HumanEval"):
        load("humaneval")


def lines(name):
    all_questions(name)  # or skip
    return [record for _, record in read_lines(FILES[name])]


def drop(field):
    return lambda records: [records[0], {k: v for k, v in records[1].items() if k != field}]


def put(field, value):
    return lambda records: [records[0], records[1] | {field: value}, *records[2:]]


def repeat(records):
    return [*records[:40], records[3], *records[40:-1]]


def part(records):
    return records[:100]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("humaneval", drop("test"), r':2: has no "test", as all records of HumanEval have'),
        ("humaneval", put("prompt", 3), r':2: "prompt" is 3; HumanEval has a text there'),
        ("humaneval", repeat, r":41: HumanEval/3 is at \S+:4 too"),
        ("humaneval", part, r":100: the last of 100 questions of HumanEval, needed are 164"),
        ("humaneval", lambda r: [5], r":1: is no object"),
        ("mbpp", drop("text"), r"without|none was task 3"),
        ("mbpp", put("test_list", ["x", 1]), r':2: "test_list" is \[.x., 1\]; MBPP has a list'),
        ("mbpp", put("task_id", True), r':2: "task_id" is True; MBPP has a whole number'),
        ("mbpp", lambda r: r[10:510], r"none was task 2, which all prompts show"),
        ("mbpp", part, r":100: the last of 90 questions of MBPP, needed are 500"),
        ("mbpp", lambda r: [*r[:20], r[15], *r[20:]], r":21: mbpp/16 is at \S+:16 too"),
        ("gsm8k", put("answer", "Four."), r':2: "answer" does not end in "#### "'),
        ("gsm8k", drop("question"), r':2: has no "question"'),
        (
            "gsm8k",
            lambda r: [*r, *r],
            r":2638: the last of 2638 questions of GSM8K, needed are 1319",
        ),
        ("math500", drop("answer"), r':2: has no "answer"'),
        ("math500", put("level", "3"), r":2: \"level\" is '3'; MATH-500 has a whole number"),
        ("math500", repeat, r":41: test/\S+ is at \S+:4 too"),
    ],
)
def test_what_is_not_the_set_is_refused(tmp_path, name, change, message):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in change(lines(name))))
    with pytest.raises(DataError, match=message) as raised:
        load(name, path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("set.jsonl", b"", "holds no records"),
        ("set.jsonl", b"{}\n{'a': 1}\n", ":1: has no|:2: not valid JSON"),
        ("set.jsonl", b"\xff\xfe\n", ":1: not valid JSON"),
        ("set.jsonl.gz", b"{}\n", "cannot read: Not a gzipped file"),
        ("set.jsonl.gz", gzip.compress(b"{}\n" * 99)[:12], "cannot read"),
        (None, b"", "cannot read: No such file"),
    ],
    ids=["empty", "no JSON", "no UTF-8", "no gzip", "cut off", "absent"],
)
def test_broken_files_are_refused(tmp_path, file, content, message):
    path = tmp_path / (file or "absent.jsonl")
    if file:
        path.write_bytes(content)
    for name in ("humaneval", "mbpp", "gsm8k"):
        with pytest.raises(DataError, match=message) as raised:
            load(name, path)
        assert str(raised.value).startswith(str(path))


def test_without_math_verify_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(
        "jacobi_forcing.problems.published.equivalence.find_spec", lambda name: None
    )
    with pytest.raises(ConfigError, match=r"jacobi-forcing\[evaluate\]"):
        load("math500", Path("any"))
