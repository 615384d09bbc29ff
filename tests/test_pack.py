"""Packing keeps every prompt and answer as they are, and always writes the same bytes."""

import json
import random
import subprocess
import sys
from collections import defaultdict

import pytest
from packs import (
    flat,
    nearest_state,
    pack_config,
    pack_one,
    random_trajectories,
    random_trajectory,
    write_trajectories,
)

from jacobi_forcing.data.files import alone_in, read_rows, sha256, shard_paths, write_rows
from jacobi_forcing.data.packed import num_tokens, read_packed
from jacobi_forcing.data.trajectories import MANIFEST, SCHEMA, read_manifest
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages import pack
from jacobi_forcing.training import first_fit
from jacobi_forcing.training.layout import deinterleave
from jacobi_forcing.training.schedule import scheduled_ratios

BLOCK = 4


@pytest.fixture(scope="module")
def trajectories():
    made = random_trajectories(0, 23, BLOCK)
    assert len({tuple(t.prompt_ids) for t in made}) > 20
    assert {t.finish_reason for t in made} == {"eos", "length"}
    return made


@pytest.fixture(scope="module")
def source(trajectories, tmp_path_factory):
    folder = write_trajectories(tmp_path_factory.mktemp("trajectories"), trajectories, BLOCK)
    assert len(shard_paths(folder)) == 5
    return folder


def packed_bytes(source, out, **settings):
    pack.run(pack_config(source, out, **settings))
    return {shard.name: sha256(shard) for shard in shard_paths(out)}


def packed_sequences(source, out, **settings):
    pack.run(pack_config(source, out, **settings))
    return read_packed(out, BLOCK)


def packed_documents(source, out, **settings):
    """What is packed, every document in a sequence of its own."""
    return [document for [document] in packed_sequences(source, out, **settings)]


def plain(document):
    """A document that can be compared."""
    return (*document[:3], document.input_ids.tolist(), document.noise_ratios.tolist())


@pytest.mark.parametrize("schedule", ["progressive", "random", "reverse"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(source, tmp_path, schedule):
    settings = {"schedule": schedule, "phase": "random", "copies": 2, "window": 3}
    first = packed_bytes(source, tmp_path / "a", **settings)
    assert len(first) == 5
    assert packed_bytes(source, tmp_path / "b", **settings) == first
    other = packed_bytes(source, tmp_path / "c", seed=1, **settings)
    assert all(other[name] != first[name] for name in first)


@pytest.mark.parametrize("sequence_prompts", [0, 1])
def test_processes_and_their_order_do_not_change_the_bytes(
    source, tmp_path, monkeypatch, sequence_prompts
):
    """The reference merges rows as they come and swallows answers into prompts."""
    settings = {"phase": "random", "schedule": "random", "copies": 2, "max_length": 90}
    settings["sequence_prompts"] = sequence_prompts
    first = packed_bytes(source, tmp_path / "a", **settings)
    if sequence_prompts == 0:
        assert packed_bytes(source, tmp_path / "b", workers=2, **settings) == first

    def last_one_first(function, workers, *items):
        return list(map(function, *(column[::-1] for column in items)))[::-1]

    monkeypatch.setattr(pack, "_map", last_one_first)
    assert packed_bytes(source, tmp_path / "c", **settings) == first


def test_which_shard_a_trajectory_lies_in_does_not_change_its_document(
    trajectories, source, tmp_path
):
    settings = {"phase": "random", "schedule": "random"}
    other = write_trajectories(tmp_path / "other", trajectories[::-1], BLOCK, per_shard=7)
    found = packed_documents(other, tmp_path / "b", **settings)
    expected = packed_documents(source, tmp_path / "a", **settings)
    assert [plain(d) for d in found[::-1]] == [plain(d) for d in expected]


@pytest.mark.parametrize("max_length", [30, 2048])
@pytest.mark.parametrize("schedule", ["progressive", "random", "reverse"])
def test_every_document_is_what_the_slow_version_makes_of_its_trajectory(
    trajectories, source, tmp_path, schedule, max_length
):
    settings = {"schedule": schedule, "phase": "random", "window": 3, "max_length": max_length}
    config = pack_config(**settings)
    expected = [
        plain(pack_one(t, BLOCK, config, copy)[0])
        for t in trajectories
        for copy in range(3)
        if len(t.prompt_ids) + 2 * BLOCK <= max_length
    ]
    found = packed_documents(source, tmp_path, copies=3, **settings)
    assert sorted(map(plain, found)) == sorted(expected)
    assert len(expected) == 3 * len(trajectories)


def test_what_workers_run_imports_neither_torch_nor_transformers():
    code = "import sys, jacobi_forcing.training.packing; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(found.stdout.split())
    assert "pyarrow" in found.stdout.split()


# Several prompts in a sequence


@pytest.mark.parametrize("max_length", [50, 90, 200])
@pytest.mark.parametrize("sequence_prompts", [0, 1, 2, 3])
def test_sequences_hold_every_document_once_and_never_too_much(
    source, tmp_path, max_length, sequence_prompts
):
    settings = {"copies": 2, "phase": "random", "max_length": max_length}
    expected = packed_documents(source, tmp_path / "alone", **settings)
    sequences = packed_sequences(
        source, tmp_path / "together", sequence_prompts=sequence_prompts, **settings
    )
    found = [document for sequence in sequences for document in sequence]
    assert sorted(map(plain, found)) == sorted(map(plain, expected))
    assert max(map(num_tokens, sequences)) <= max_length
    sizes = [len(sequence) for sequence in sequences]
    assert max(sizes) <= (sequence_prompts or len(expected))
    assert max(sizes) > 1 or sequence_prompts == 1 or max_length == 50
    manifest = read_manifest(tmp_path / "together", "pack")
    assert manifest["num_sequences"] == len(sequences)
    assert manifest["num_documents"] == len(expected)
    assert manifest["num_tokens"] == num_tokens(expected)


def slow_first_fit(lengths, max_length):
    """Sequences as lists of lengths."""
    sequences = []
    for length in sorted(lengths, reverse=True):
        fitting = [s for s in sequences if sum(s) + length <= max_length]
        if fitting:
            fitting[0].append(length)
        else:
            sequences.append([length])
    return sequences


def test_documents_go_first_fit_the_longest_first(tmp_path):
    made = random_trajectories(3, 200, BLOCK, max_blocks=12)
    source = write_trajectories(tmp_path / "in", made, BLOCK, per_shard=200)
    sequences = packed_sequences(source, tmp_path / "out", max_length=128, sequence_prompts=0)
    found = [[len(document.input_ids) for document in sequence] for sequence in sequences]
    alone = packed_documents(source, tmp_path / "alone", max_length=128)
    expected = slow_first_fit([len(document.input_ids) for document in alone], 128)
    assert sorted(found) == sorted(expected)
    # Nearly nothing stays empty, and that is not because all lengths are alike.
    assert sum(map(sum, found)) > 0.95 * 128 * (len(found) - 1)
    assert len({len(document.input_ids) for document in alone}) > 50


def test_a_full_window_closes_its_oldest_sequence(monkeypatch, tmp_path):
    monkeypatch.setattr(first_fit, "_MOST_OPEN", 2)
    monkeypatch.setattr(first_fit, "_MOST_WAITING", 5)
    open_ones = []
    place = first_fit.FirstFit._place

    def watched(self):
        for sequence in place(self):
            open_ones.append(len(self._open))
            yield sequence
        assert len(self._waiting) == 0
        assert len(self._open) <= 2

    monkeypatch.setattr(first_fit.FirstFit, "_place", watched)
    made = random_trajectories(3, 60, BLOCK)
    source = write_trajectories(tmp_path / "in", made, BLOCK, per_shard=60)
    settings = {"max_length": 90, "sequence_prompts": 0}
    sequences = packed_sequences(source, tmp_path / "out", **settings)
    found = [document.prompt_index for sequence in sequences for document in sequence]
    assert sorted(found) == list(range(60))
    assert max(open_ones) == 2


# What it reads


def test_folders_of_one_model_are_packed_together_as_one_would_be(trajectories, source, tmp_path):
    first = write_trajectories(tmp_path / "first", trajectories[:10], BLOCK)
    rest = write_trajectories(tmp_path / "rest", trajectories[10:], BLOCK)
    found = packed_bytes(f"{first}, {rest}", tmp_path / "a", phase="random")
    assert list(found.values()) == list(
        packed_bytes(source, tmp_path / "b", phase="random").values()
    )
    manifest = read_manifest(tmp_path / "a", "pack")
    assert manifest["num_prompts"] == 23
    assert len(manifest["inputs"]) == 2


@pytest.mark.parametrize(
    ("fact", "value"),
    [("block_size", 8), ("tokenizer", "another"), ("record", "answers"), ("weights", "another")],
)
def test_folders_that_were_collected_otherwise_are_not_mixed(trajectories, tmp_path, fact, value):
    first = write_trajectories(tmp_path / "first", trajectories[:10], BLOCK)
    facts = {"origin": {"weights": value}} if fact == "weights" else {fact: value}
    other = write_trajectories(tmp_path / "other", trajectories[10:], BLOCK, facts=facts)
    with pytest.raises(DataError, match=rf"{other}: was collected with {fact} '?{value}"):
        pack.run(pack_config(f"{first},{other}", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_occurs_twice_is_named_with_both_places(trajectories, tmp_path):
    first = write_trajectories(tmp_path / "first", trajectories[:10], BLOCK)
    other = write_trajectories(tmp_path / "other", trajectories[9:], BLOCK)
    message = rf"{other}/part-00000\S+: prompt 9 occurs again, after {first}/part-00001"
    with pytest.raises(DataError, match=message):
        pack.run(pack_config(f"{first},{other}", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def spoiled(trajectory, kind):
    states = [[list(state) for state in block] for block in trajectory.states]
    if kind == "state":
        states[1][0] = states[1][0][:-1]
    elif kind == "fixed point":
        states[1] = []
    elif kind == "blocks":
        states += [states[0], states[0]]
    elif kind == "prompt":
        return trajectory._replace(prompt_ids=[])
    return trajectory._replace(states=states)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_finds_wrong_is_told(tmp_path, workers):
    made = random_trajectories(0, 10, BLOCK)
    made[7] = spoiled(made[7], "prompt")
    source = write_trajectories(tmp_path / "in", made, BLOCK)
    with pytest.raises(DataError, match=r"part-00001\S+: prompt 7: the prompt is empty"):
        pack.run(pack_config(source, tmp_path / "out", workers=workers))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("state", "a state is not of 4 tokens"),
        ("fixed point", "a block has no state"),
        ("blocks", "there are more blocks than the answer fills"),
        ("prompt", "the prompt is empty"),
    ],
)
def test_trajectories_that_are_not_what_their_manifest_says_are_named(tmp_path, kind, message):
    made = random_trajectories(0, 40, BLOCK)
    number = next(t.prompt_index for t in made if t.prompt_index > 35 and len(t.states) > 1)
    made[number] = spoiled(made[number], kind)
    source = write_trajectories(tmp_path / "in", made, BLOCK, per_shard=40)
    with pytest.raises(DataError, match=rf"part-00000\S+: prompt {number}: {message}"):
        pack.run(pack_config(source, tmp_path / "out"))
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_file_that_was_cut_short_is_named_whether_its_manifest_lists_it_or_not(
    trajectories, tmp_path
):
    source = write_trajectories(tmp_path / "in", trajectories, BLOCK)
    shard = shard_paths(source)[1]
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{shard}: not a readable Parquet file, it may"):
        pack.run(pack_config(source, tmp_path / "out"))
    list_files(source)
    with pytest.raises(DataError, match=rf"{shard}: not a readable Parquet file"):
        pack.run(pack_config(source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def list_files(source):
    """Let the manifest list the files as they are now."""
    manifest = json.loads((source / MANIFEST).read_text())
    manifest["shards"] = {shard.name: sha256(shard) for shard in shard_paths(source)}
    (source / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("column", ["prompt_ids", "states"])
def test_nulls_are_refused(tmp_path, column):
    made = random_trajectories(0, 5, BLOCK)
    source = write_trajectories(tmp_path / "in", made, BLOCK)
    rows = read_rows(shard_paths(source)[0])
    rows[3][column] = None
    write_rows(shard_paths(source)[0], rows, SCHEMA)
    list_files(source)
    with pytest.raises(DataError, match=rf"part-00000\S+: {column}: holds a null"):
        pack.run(pack_config(source, tmp_path / "out"))


# What it writes


def test_every_row_has_its_own_prompt_and_all_blocks_of_its_answer_in_order(
    trajectories, source, tmp_path
):
    rows = packed_documents(source, tmp_path, copies=2, phase="random")
    assert sorted(row.prompt_index for row in rows) == [i for i in range(23) for _ in range(2)]
    for row in rows:
        trajectory = trajectories[row.prompt_index]
        prompt, noisy, clean = deinterleave(row.input_ids, row.prompt_length, BLOCK)
        assert prompt == trajectory.prompt_ids
        assert clean == [block[-1] for block in trajectory.states]
        assert flat(clean)[: row.answer_length] == trajectory.answer_ids
        assert len(noisy) == len(clean) == len(row.noise_ratios)
        assert all(n in states for n, states in zip(noisy, trajectory.states, strict=True))


def test_noisy_blocks_are_the_states_nearest_to_the_schedule(trajectories, source, tmp_path):
    num_noisy = 0
    for row in packed_documents(source, tmp_path, window=3, min_noise_ratio=0.25):
        _, noisy, clean = deinterleave(row.input_ids, row.prompt_length, BLOCK)
        ratios = scheduled_ratios(
            "progressive", len(clean), window=3, low=0.25, rng=random.Random()
        )
        assert row.noise_ratios == pytest.approx(ratios)
        states = trajectories[row.prompt_index].states
        picked = [s[nearest_state(s, ratio)] for s, ratio in zip(states, ratios, strict=True)]
        assert noisy == picked
        num_noisy += sum(n != c for n, c in zip(noisy, clean, strict=True))
    assert num_noisy > 20


def test_copies_of_a_trajectory_have_phases_of_their_own(source, tmp_path):
    ratios = defaultdict(set)
    for row in packed_documents(source, tmp_path, copies=6, phase="random", window=5):
        ratios[row.prompt_index].add(tuple(row.noise_ratios))
    assert min(map(len, ratios.values())) > 1
    # Where each one starts differs from prompt to prompt, and no start is left out.
    assert len({start[0] for starts in ratios.values() for start in starts}) == 5


def verdict_trajectories():
    rng = random.Random(1)
    kinds = [(ends, solved) for ends in (True, False) for solved in (True, False, None)]
    return [
        random_trajectory(rng, i, BLOCK, 3, ends=ends, solved=solved)
        for i, (ends, solved) in enumerate(kinds * 2)
    ]


@pytest.mark.parametrize("solved_only", [True, False])
@pytest.mark.parametrize("finished_only", [True, False])
def test_filters_leave_out_failed_and_unfinished_answers_and_no_others(
    tmp_path, solved_only, finished_only
):
    made = verdict_trajectories()
    folder = write_trajectories(tmp_path / "in", made, BLOCK)
    rows = packed_documents(
        folder, tmp_path / "out", solved_only=solved_only, finished_only=finished_only
    )
    wanted = [
        t.prompt_index
        for t in made
        if not (solved_only and t.solved is False)
        and (t.finish_reason == "eos" or not finished_only)
    ]
    assert [row.prompt_index for row in rows] == wanted
    assert len(wanted) == (8 if solved_only else 12) // (2 if finished_only else 1)
    assert read_manifest(tmp_path / "out", "pack")["num_sequences"] == len(wanted)


@pytest.mark.parametrize("max_length", [9, 15, 16, 17, 30, 1000])
def test_max_length_cuts_whole_blocks_and_drops_what_has_no_room_for_one(
    trajectories, source, tmp_path, max_length
):
    rows = {r.prompt_index: r for r in packed_documents(source, tmp_path, max_length=max_length)}
    for trajectory in trajectories:
        room = (max_length - len(trajectory.prompt_ids)) // (2 * BLOCK)
        if room < 1:
            assert trajectory.prompt_index not in rows
            continue
        row = rows[trajectory.prompt_index]
        _, _, clean = deinterleave(row.input_ids, row.prompt_length, BLOCK)
        assert clean == [block[-1] for block in trajectory.states[:room]]
        assert len(row.input_ids) <= max_length
        assert row.answer_length == min(len(trajectory.answer_ids), BLOCK * len(clean))
        assert flat(clean)[: row.answer_length] == trajectory.answer_ids[: row.answer_length]
    assert (len(rows) < len(trajectories)) == (max_length < 17)


def test_nothing_left_to_pack_is_an_error_that_says_why(tmp_path):
    made = [t for t in verdict_trajectories() if t.solved is False]
    folder = write_trajectories(tmp_path / "in", made, BLOCK)
    with pytest.raises(
        DataError, match=r"no trajectory is left.* 4 collected.* 2 ended with EOS.*--max-length"
    ):
        pack.run(pack_config(folder, tmp_path / "out"))
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_trajectories_without_a_manifest_are_an_error_that_names_them(tmp_path):
    folder = write_trajectories(tmp_path / "in", verdict_trajectories(), BLOCK)
    (folder / MANIFEST).unlink()
    with pytest.raises(DataError, match=rf"{folder}.*jacobi collect"):
        pack.run(pack_config(folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_packing_again_leaves_nothing_of_what_was_there(source, tmp_path):
    few = write_trajectories(tmp_path / "few", random_trajectories(9, 4, BLOCK), BLOCK)
    expected = packed_bytes(few, tmp_path / "fresh")
    packed_bytes(source, tmp_path / "out")
    assert packed_bytes(few, tmp_path / "out") == expected
    assert read_manifest(tmp_path / "out", "pack")["num_sequences"] == 4


def test_packing_over_the_trajectories_themselves_is_refused(trajectories, tmp_path):
    source = write_trajectories(tmp_path, trajectories, BLOCK)
    before = {shard.name: sha256(shard) for shard in shard_paths(source)}
    with pytest.raises(ConfigError, match="--out"):
        pack.run(pack_config(source, source / ".." / source.name))
    assert {shard.name: sha256(shard) for shard in shard_paths(source)} == before


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["collection", "begun", "settings", "shards", "parts", "broken"])
def test_packing_over_what_pack_did_not_write_is_refused(
    source, trajectories, tmp_path, kind, refused
):
    out = tmp_path / "out"
    named = f"{out}, which holds "
    if kind in ("collection", "begun"):
        write_trajectories(out, trajectories, BLOCK)
        named += MANIFEST
    if kind == "begun":  # and not finished
        (out / MANIFEST).unlink()
        named = named.replace(MANIFEST, "part-00000.parquet")
    elif kind in ("shards", "parts"):
        if kind == "parts":  # a folder that was packed, and then collected into
            packed_bytes(source, out)
        for number in (1, 2):
            write_trajectories(out / f"shard-{number}-of-2", trajectories[number::2], BLOCK)
        named += "shard-1-of-2"
    elif kind in ("settings", "broken"):
        out.mkdir()
        name = "settings.json" if kind == "settings" else "part-00000.parquet"
        (out / name).write_text("{}")
        named += name
    before = content(out)
    assert named in refused("pack", "--trajectories", source, "--out", out)
    if kind == "shards":  # one machine's part into the folder of all
        part = out / "shard-1-of-2"
        assert named in refused("pack", "--trajectories", part, "--out", out)
    assert content(out) == before != {}


def test_what_a_killed_pack_left_is_replaced(source, tmp_path):
    expected = packed_bytes(source, tmp_path / "fresh")
    out = tmp_path / "out"
    packed_bytes(source, out, seed=1)
    (out / MANIFEST).unlink()
    shard_paths(out)[-1].unlink()
    assert packed_bytes(source, out) == expected
    assert read_manifest(out, "pack")["shards"] == expected


def test_a_folder_is_packed_into_by_one_process_at_a_time(source, tmp_path, refused):
    out = tmp_path / "out"
    packed_bytes(source, out)
    before = content(out)
    with alone_in(out, "pack.lock"):
        line = refused("pack", "--trajectories", source, "--out", out, "--seed", 1)
    assert f"{out}: another process is at work in this folder" in line
    assert content(out) == before
    packed_bytes(source, out, seed=1)
    assert content(out) != before


def test_packing_into_a_file_is_refused(source, tmp_path, refused):
    (tmp_path / "out").write_text("mine")
    line = refused("pack", "--trajectories", source, "--out", tmp_path / "out")
    assert f"--out: {tmp_path}/out is a file" in line


def test_the_manifest_lists_every_shard_with_its_hash(source, tmp_path):
    shards = packed_bytes(source, tmp_path, window=6)
    manifest = read_manifest(tmp_path, "pack")
    assert manifest["shards"] == shards
    assert (manifest["window"], manifest["block_size"], manifest["num_prompts"]) == (6, BLOCK, 23)
