"""Collecting for real: killed at any moment, in parts, filtered, verified, counted, mixed up."""

import json
import math
import os
import random
import shlex
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from toys import save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.data.files import locked, read_rows, sha256, shard_paths
from jacobi_forcing.data.journal import Journal
from jacobi_forcing.data.open_shards import OpenShards
from jacobi_forcing.data.trajectories import read_all, read_manifest
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages import collect

BLOCK, BUDGET = 4, 24
NUM_PROMPTS = 18
VERIFIERS = '''
import os, time

def odd(prompt, answer, record):
    """Judges by the record and the answer, and does everything that a verifier should not."""
    print("noise on standard output")
    kind = record["kind"]
    assert record["prompt"] == prompt, (record, prompt)
    if kind == "raise":
        raise ValueError("no\\nverdict")
    if kind == "exit":
        raise SystemExit(3)
    if kind == "die":
        os._exit(1)
    if kind == "hang":
        os.system("sleep 60")
    if kind == "none":
        return None
    return len(answer.split()) % 2 == 1

number = 3
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy") / "model", max_position_embeddings=96)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Prompts of different lengths, each with an id."""
    rng = random.Random(5)
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    texts = [" ".join(f"w{rng.randrange(2, 64)}" for _ in range(n)) for n in range(2, 20)]
    rng.shuffle(texts)
    records = [{"id": f"p{i}", "prompt": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def settings(toy, prompts, out, *more):
    base = ["collect", "--model", toy, "--prompts", prompts, "--out", out, "--threads", 1]
    sizes = ["--block-size", BLOCK, "--max-new-tokens", BUDGET, "--shard-prompts", 4]
    # Something is dropped of most shards, so that both kinds of file are written.
    return [str(a) for a in (*base, *sizes, "--finished-only", "--batch-size", 5, *more)]


@pytest.fixture(scope="module")
def whole(toy, prompts, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(settings(toy, prompts, out)) == 0
    return out


def content(folder):
    """What of a folder must not depend on how it was made: all but the record of the run."""
    reports = (folder / "report.json", folder / "report.html", folder / "settings.json")
    return {p.name: sha256(p) for p in [*sorted(folder.glob("*.parquet")), *reports]}


def decoded(monkeypatch):
    """Note which prompts are decoded from now on."""
    noted, decode = [], collect.decode_prompts

    def noting(config, model, prompts, order, *more):
        for trajectory in decode(config, model, prompts, order, *more):
            noted.append(trajectory.prompt_index)
            yield trajectory

    monkeypatch.setattr(collect, "decode_prompts", noting)
    return noted


def finished(folder):
    """The prompts that a folder holds, in shards, beside them and in journals."""
    found = []
    for path in folder.glob("*.parquet"):
        found += [row["prompt_index"] for row in read_rows(path, ["prompt_index"])]
    for path in folder.glob("*.journal"):
        lines = [line for line in path.read_bytes().splitlines(True) if line.endswith(b"\n")]
        found += [json.loads(line.split(b" ", 1)[1])[0] for line in lines]
    return found


# Killed


def run_and_die(arguments, out, moment):
    """Run a command in a child that kills itself at its `moment`-th operation on files below `out`.

    Returns:
        The names of the files and folders of the operations that it came to.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        num, turn = 0, threading.Lock()

        def count(event, found):
            nonlocal num
            watched = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir")
            if event in watched and str(found[0]).startswith(str(out)):
                with turn:  # no other thread comes in between
                    num += 1
                    os.write(write_end, os.fsencode(Path(str(found[0])).name) + b"\n")
                    if num == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                        signal.pause()

        try:
            sys.addaudithook(count)
            main(arguments)
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        names = pipe.read().splitlines()
    os.waitpid(child, 0)
    return names


def test_killed_at_any_operation_on_files_it_continues_to_the_same_bytes(
    toy, prompts, whole, tmp_path, monkeypatch
):
    last = len(run_and_die(settings(toy, prompts, tmp_path / "dry"), tmp_path / "dry", 0))
    assert content(tmp_path / "dry") == content(whole)
    assert last > 40
    rng = random.SystemRandom()  # other moments in every run of the tests
    states = Counter()
    for start in range(1, last + 1, 8):
        moment = min(start + rng.randrange(8), last)
        out = tmp_path / f"killed-{moment}"
        assert len(run_and_die(settings(toy, prompts, out), out, moment)) == moment
        before = set(finished(out)) if out.exists() else set()
        states["journal"] += bool(list(out.glob("*.journal")))
        states["shard"] += bool(list(out.glob("part-*.parquet")))
        with monkeypatch.context() as patch:
            noted = decoded(patch)
            assert main(settings(toy, prompts, out)) == 0
        assert content(out) == content(whole), moment
        assert not [p.name for p in out.iterdir() if p.suffix in (".journal", ".tmp")]
        assert sorted(finished(out)) == list(range(NUM_PROMPTS)), "none lost, none doubled"
        assert sorted(noted) == sorted(set(range(NUM_PROMPTS)) - before), "none decoded again"
    assert states["journal"] > 1
    assert states["shard"] > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_says_what_is_kept_and_continues_to_the_same_bytes(
    toy, prompts, whole, tmp_path, monkeypatch, capsys, number
):
    arguments = settings(toy, prompts, tmp_path / "out")
    add = OpenShards.add

    def told(self, trajectory):
        found = add(self, trajectory)
        if len(self.todo) == NUM_PROMPTS - 7:
            signal.raise_signal(number)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(OpenShards, "add", told)
        assert main(arguments) == 128 + number
    last = capsys.readouterr().err.splitlines()[-1]
    kept = f"7 of {NUM_PROMPTS} prompts are finished and kept in {tmp_path / 'out'}."
    assert kept in last
    assert f"Continue with: {shlex.join(['jacobi', *arguments])}" in last
    assert len(finished(tmp_path / "out")) == 7
    assert main(arguments) == 0
    assert content(tmp_path / "out") == content(whole)


def test_a_journal_cut_anywhere_gives_the_whole_lines_before(tmp_path):
    lines = [f'{{"n": {n}, "text": "{"é" * n}"}}' for n in range(5)]
    journal = Journal(tmp_path / "whole")
    ends = [0]
    for line in lines:
        journal.append(line)
        ends.append(journal.path.stat().st_size)
    journal.close()
    data = journal.path.read_bytes()
    for cut in range(len(data) + 1):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        journal = Journal(path)
        num_whole = sum(end <= cut for end in ends) - 1
        assert journal.lines == lines[:num_whole]
        journal.append("new")
        journal.close()
        assert Journal(path).lines == [*lines[:num_whole], "new"]
    # Pages that a power failure left as zeros: what lies behind them is not trusted.
    path.write_bytes(data[: ends[2]] + bytes(ends[3] - ends[2]) + data[ends[3] :])
    assert Journal(path).lines == lines[:2]


def test_a_folder_is_one_process_at_a_time(toy, prompts, whole, tmp_path, refused):
    out = shutil.copytree(whole, tmp_path / "out")
    with locked(out / "settings.json"):
        line = refused(*settings(toy, prompts, out))
    assert f"{out}: another process is at work in this folder" in line
    with locked(out / "settings.json"), pytest.raises(ConfigError):
        locked(out / "settings.json").__enter__()
    assert main(settings(toy, prompts, out)) == 0


# Order and batches


def test_order_and_neighbours_change_nothing(toy, prompts, whole, tmp_path):
    for number, more in enumerate(
        (("--sort-prompts", 1), ("--sort-prompts", 7, "--batch-size", 1))
    ):
        out = tmp_path / str(number)
        assert main(settings(toy, prompts, out, *more)) == 0
        assert content(out) == content(whole)


def test_prompts_decoded_together_are_alike_in_length(toy, prompts, tmp_path, monkeypatch):
    orders, decode = [], collect.decode_prompts

    def noting(config, model, prompts, order, *more):
        orders.append([len(prompts[i].ids) for i in order])
        return decode(config, model, prompts, order, *more)

    monkeypatch.setattr(collect, "decode_prompts", noting)
    for number, size in enumerate((1, 6, 1024)):
        assert main(settings(toy, prompts, tmp_path / str(number), "--sort-prompts", size)) == 0
    plain, in_lots, sorted_whole = orders
    assert sorted_whole == sorted(plain) != plain
    for lot in range(3):
        part = slice(6 * lot, 6 * lot + 6)
        assert in_lots[part] == sorted(plain[part], reverse=lot == 1)


# Parts of the work


def test_parts_are_the_single_run_and_join_by_themselves(toy, prompts, whole, tmp_path, refused):
    out = tmp_path / "out"
    for number in (3, 1, 2):
        with pytest.raises(DataError, match="not a finished"):
            read_manifest(out, "collect")
        if number == 2:
            line = refused("pack", "--trajectories", out, "--out", tmp_path / "packed")
            assert "Of its parts, shard-1-of-3, shard-3-of-3 are finished." in line
        assert main(settings(toy, prompts, out, "--shard", f"{number}/3")) == 0
    assert [p.parent.name for p in shard_paths(out)] == [
        f"shard-{n % 3 + 1}-of-3" for n in range(5)
    ]
    joined = read_manifest(out, "collect")
    single = read_manifest(whole, "collect")
    same = [name for name in single if name not in ("command", "settings", "hardware", "commit")]
    assert {n: joined[n] for n in same} == {n: single[n] for n in same}
    assert list(read_all(out)) == list(read_all(whole))
    assert (out / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    assert main(["pack", "--trajectories", str(out), "--out", str(tmp_path / "a")]) == 0
    assert main(["pack", "--trajectories", str(whole), "--out", str(tmp_path / "b")]) == 0
    packs = [[sha256(p) for p in shard_paths(tmp_path / name)] for name in "ab"]
    assert packs[0] == packs[1] != []

    # From machines without a common disk: copied together, joined by whoever asks again.
    apart = tmp_path / "apart"
    for folder in sorted(out.glob("shard-*")):
        shutil.copytree(folder, apart / folder.name)
    assert main(settings(toy, prompts, apart, "--shard", "2/3")) == 0
    assert (apart / "manifest.json").read_bytes() == (out / "manifest.json").read_bytes()

    line = refused(*settings(toy, prompts, out, "--shard", "1/2"))
    assert f"{out}: was begun in 3 parts, now it is 2" in line
    assert "was begun in 3 parts, now it is 1" in refused(*settings(toy, prompts, out))
    line = refused(*settings(toy, prompts, whole, "--shard", "1/2"))
    assert "was begun in 1 parts, now it is 2" in line


def test_a_part_without_prompts_joins_the_others(toy, prompts, whole, tmp_path, refused):
    """The whole has five shards; the sixth and seventh of seven parts have none."""
    out = tmp_path / "out"
    for number in (7, 1, 2, 3, 4, 5, 6):
        assert main(settings(toy, prompts, out, "--shard", f"{number}/7")) == 0
    parts = [out / f"shard-{number}-of-7" for number in range(1, 8)]
    manifests = [read_manifest(part, "collect") for part in parts]
    assert [m["num_prompts"] + m["num_dropped"] for m in manifests] == [4, 4, 4, 4, 2, 0, 0]
    assert list(read_all(out)) == list(read_all(whole))
    assert (out / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    names = ("a", out), ("b", whole), ("c", ",".join(map(str, parts)))
    for name, source in names:
        assert main(["pack", "--trajectories", str(source), "--out", str(tmp_path / name)]) == 0
    packs = [[sha256(p) for p in shard_paths(tmp_path / name)] for name, _ in names]
    assert packs[0] == packs[1] == packs[2] != []
    line = refused("pack", "--trajectories", parts[6], "--out", tmp_path / "d")
    assert "no trajectory is left to pack: 0 collected" in line


def test_a_models_own_folder_is_not_collected_into(toy, prompts, tmp_path, refused):
    own = shutil.copytree(toy, tmp_path / "own")
    line = refused(*settings(toy, prompts, own))
    assert f"--out is {own}, which holds config.json of a model" in line
    assert sorted(p.name for p in own.iterdir()) == sorted(p.name for p in toy.iterdir())


def test_the_manifest_has_the_hash_of_a_file_of_prompts(prompts, whole):
    assert read_manifest(whole, "collect")["inputs"] == {str(prompts): sha256(prompts)}


def test_parts_of_different_models_do_not_join(toy, prompts, tmp_path, refused):
    out = tmp_path / "out"
    other = save_toy(tmp_path / "other", seed=1, max_position_embeddings=96)
    assert main(settings(toy, prompts, out, "--shard", "1/2")) == 0
    line = refused(*settings(other, prompts, out, "--shard", "2/2"))
    assert "part-00001.parquet: was collected with weights = " in line
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_part_that_does_not_exist_is_refused(shard, toy, prompts, tmp_path, refused):
    line = refused(*settings(toy, prompts, tmp_path / "out", f"--shard={shard}"))
    assert f"--shard is '{shard}', must be i/N" in line


# Filters


def dropped(folder):
    rows = [row for path in sorted(folder.glob("dropped-*")) for row in read_rows(path)]
    return {row["prompt_index"]: (row["reason"], row["detail"]) for row in rows}


def test_filters_drop_with_a_reason_and_lose_nothing(toy, prompts, tmp_path):
    plain = tmp_path / "plain"
    base = [a for a in settings(toy, prompts, plain) if a != "--finished-only"]
    assert main(base) == 0
    every = {t.prompt_index: t for t in read_all(plain)}
    assert dropped(plain) == {}
    assert list(plain.glob("dropped-*")) == []

    out = tmp_path / "out"
    limits = {"max-prompt-tokens": 16, "min-answer-tokens": 9, "min-distinct": 0.97}
    flags = [str(a) for name, value in limits.items() for a in (f"--{name}", value)]
    base[base.index("--out") + 1] = str(out)
    assert main([*base, *flags, "--distinct-tokens", "2", "--finished-only"]) == 0

    def reason(one):
        pairs = list(zip(one.answer_ids, one.answer_ids[1:], strict=False))
        if len(one.prompt_ids) > 16:
            return "long-prompt"
        if one.finish_reason != "eos":
            return "unfinished"
        if len(one.answer_ids) < 9:
            return "short-answer"
        return "repetitive" if len(set(pairs)) < 0.97 * len(pairs) else None

    expected = {i: reason(one) for i, one in every.items()}
    assert len(set(expected.values())) == 5, "every reason, and some are kept"
    found = dropped(out)
    assert {i: found[i][0] if i in found else None for i in every} == expected
    kept = list(read_all(out))
    assert kept == [every[i] for i in every if expected[i] is None]
    rows = [row for path in sorted(out.glob("dropped-*")) for row in read_rows(path)]
    for row in rows:
        one = every[row["prompt_index"]]
        assert (row["prompt_ids"], row["prompt_id"]) == (one.prompt_ids, one.prompt_id)
        is_decoded = row["reason"] != "long-prompt"
        assert row["answer_ids"] == (one.answer_ids if is_decoded else [])
        assert row["states"] == (one.states if is_decoded else [])
    manifest = read_manifest(out, "collect")
    assert manifest["dropped"] == dict(
        Counter(filter(None, sorted(filter(None, expected.values()))))
    )
    assert manifest["num_prompts"] + manifest["num_dropped"] == NUM_PROMPTS
    assert manifest["dropped_shards"] == {p.name: sha256(p) for p in out.glob("dropped-*")}


def test_prompts_beyond_the_context_are_dropped_where_a_limit_says_so(toy, tmp_path, refused):
    path = tmp_path / "prompts.jsonl"
    records = [{"prompt": "w2 " * 200}, {"prompt": "w2 w3"}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    out = tmp_path / "out"
    assert f"{path}:1" in refused(*settings(toy, path, out))
    line = refused(*settings(toy, path, out, "--max-prompt-tokens", "96"))
    assert "--max-prompt-tokens is 96, but the context of 96 tokens" in line
    assert main(settings(toy, path, out, "--max-prompt-tokens", "20")) == 0
    assert dropped(out)[0] == ("long-prompt", "200 tokens")


def test_the_report_counts_what_is_there(toy, prompts, whole, capsys):
    report = json.loads((whole / "report.json").read_text())
    rows = list(read_all(whole))
    assert len(rows) > 3
    states = Counter(len(block) for t in rows for block in t.states)
    ratios = Counter(math.floor(4 * len(t.answer_ids) / t.num_forwards) / 4 for t in rows)
    assert {float(k): n for k, n in report["tokens_per_forward"].items()} == ratios
    assert {int(k): n for k, n in report["states_per_block"].items()} == states
    assert report["num_states"] == sum(k * n for k, n in states.items())
    assert report["num_tokens"] == sum(len(t.answer_ids) for t in rows)
    assert report["dropped"] == {"unfinished": NUM_PROMPTS - len(rows)}
    page = (whole / "report.html").read_text()
    for figure in (f"{len(rows)} trajectories", "unfinished", f"<td>{max(states.values())}</td>"):
        assert figure in page
    assert "{{" not in page


# Verifiers


@pytest.fixture
def verified(tmp_path, monkeypatch):
    (tmp_path / "my_verifiers.py").write_text(VERIFIERS)
    monkeypatch.chdir(tmp_path)
    kinds = ["good", "raise", "exit", "die", "hang", "none"] * 3
    records = [{"prompt": f"w{n + 2} w{n + 3}", "kind": kind} for n, kind in enumerate(kinds)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path, kinds


def test_a_verifier_that_raises_hangs_or_dies_costs_only_its_own_answer(toy, verified, tmp_path):
    path, kinds = verified
    base = [a for a in settings(toy, path, tmp_path / "out") if a != "--finished-only"]
    more = ["--verifier", "my_verifiers:odd", "--verifier-seconds", "0.5"]
    start = time.monotonic()
    assert main([*base, *more]) == 0
    assert time.monotonic() - start < 60
    found = dropped(tmp_path / "out")
    kept = {t.prompt_index: t for t in read_all(tmp_path / "out")}
    wrong = ("verifier-error", "TypeError: returned None, needed is True or False")
    expected = {
        "raise": ("verifier-error", "ValueError: no verdict"),
        "exit": ("verifier-error", "SystemExit: 3"),
        "die": ("verifier-died", "its process ended without a verdict"),
        "hang": ("verifier-timeout", "no verdict within 0.5 s"),
        "none": wrong,
    }
    for index, kind in enumerate(kinds):
        if kind != "good":
            assert found[index] == expected[kind]
        elif index in kept:
            assert len(kept[index].answer_ids) > 0
        else:
            assert found[index] == ("verifier-false", None)
    assert len(kept) + len(found) == len(kinds)
    assert {k for k in kinds} == {"good", *expected}


def test_what_a_verifier_has_started_ends_with_it(toy, verified, tmp_path):
    """A `sleep 60` under a verifier that hangs: its process group is killed, too."""
    path, _ = verified
    base = [a for a in settings(toy, path, tmp_path / "out") if a != "--finished-only"]
    assert main([*base, "--verifier", "my_verifiers:odd", "--verifier-seconds", "0.2"]) == 0
    assert "verifier-timeout" in {reason for reason, _ in dropped(tmp_path / "out").values()}
    mine = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _reads(p) == b"sleep\x0060\x00"]
    assert not [p for p in mine if _cwd(p.parent) == tmp_path]


def _reads(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _cwd(process):
    try:
        return (process / "cwd").resolve()
    except OSError:
        return None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_verifiers", "must be MODULE:FUNCTION"),
        ("my_verifiers:", "must be MODULE:FUNCTION"),
        ("my_verifier:odd", "No module named 'my_verifier'"),
        ("my_verifiers:even", "has no attribute 'even'"),
        ("my_verifiers:number", "number cannot be called"),
    ],
)
def test_a_verifier_that_cannot_be_used_is_refused(name, message, toy, verified, tmp_path, refused):
    line = refused(*settings(toy, verified[0], tmp_path / "out", "--verifier", name))
    assert message in line
    assert not (tmp_path / "out").exists()


# What does not belong together


def test_prompts_with_the_same_id_are_refused(toy, tmp_path, refused):
    path = tmp_path / "prompts.jsonl"
    for ids, message in (
        (["a", "b", "a"], f"{path}:3: the id 'a' is that of {path}:1 too"),
        ([7, None, "7"], f"{path}:3: the id '7' is that of {path}:1 too"),
        ([["x"]], f"{path}:1: the id is ['x']"),
    ):
        path.write_text("".join(json.dumps({"id": i, "prompt": "w2 w3"}) + "\n" for i in ids))
        assert message in refused(*settings(toy, path, tmp_path / "out"))
    path.write_text('{"prompt": "w2"}\n' * 2 + '{"id": 5, "prompt": "w2"}\n')
    out = tmp_path / "out"
    assert main([a for a in settings(toy, path, out) if a != "--finished-only"]) == 0
    assert [t.prompt_id for t in read_all(out)] == [None, None, "5"]


def test_shards_from_elsewhere_are_refused_by_name(toy, prompts, whole, tmp_path, refused):
    others = {"weights": [], "block_size": ["--block-size", 8], "settings": ["--seed", 1]}
    for name, more in others.items():
        model = toy
        if name == "weights":
            model = save_toy(tmp_path / "other", seed=1, max_position_embeddings=96)
        other = tmp_path / name
        assert main(settings(model, prompts, other, *more)) == 0
        mixed = shutil.copytree(whole, tmp_path / f"mixed-{name}")
        shutil.copy(other / "part-00001.parquet", mixed)
        message = f"part-00001.parquet: was collected with {name} = "
        assert message in refused("pack", "--trajectories", mixed, "--out", tmp_path / "packed")
        (mixed / "manifest.json").unlink()  # as if it were to be continued
        before = {p: p.read_bytes() for p in mixed.iterdir()}
        assert message in refused(*settings(toy, prompts, mixed))
        assert {p: p.read_bytes() for p in mixed.iterdir()} == before
    assert not (tmp_path / "packed").exists()


def test_a_shard_that_is_cut_off_or_too_many_is_refused(toy, prompts, whole, tmp_path, refused):
    out = shutil.copytree(whole, tmp_path / "out")
    shard = out / "part-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-30])
    expected = f"{shard}: not a readable Parquet file, it may be cut off"
    assert expected in refused("pack", "--trajectories", out, "--out", tmp_path / "packed")
    (out / "manifest.json").unlink()
    assert expected in refused(*settings(toy, prompts, out))
    shard.unlink()
    shutil.copy(whole / "part-00001.parquet", out / "part-00009.parquet")
    assert "part-00009.parquet: is no shard of this run" in refused(*settings(toy, prompts, out))
    (out / "part-00009.parquet").unlink()
    assert main(settings(toy, prompts, out)) == 0
    assert content(out) == content(whole)


def test_shards_say_where_they_are_from(toy, whole):
    note = json.loads(pq.read_schema(whole / "part-00000.parquet").metadata[b"jacobi"])
    manifest = json.loads((whole / "manifest.json").read_text())
    assert note["origin"] == manifest["origin"]
    assert note["origin"]["block_size"] == BLOCK
    assert torch.__version__.startswith(manifest["versions"]["torch"].split("+")[0])
