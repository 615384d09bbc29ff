"""Packing keeps every prompt and answer as they are, and always writes the same bytes."""

import random
from collections import defaultdict

import pytest
from packs import flat, pack_config, random_trajectories, random_trajectory, write_trajectories

from jacobi_forcing.data.files import sha256, shard_paths
from jacobi_forcing.data.packed import read_packed
from jacobi_forcing.data.trajectories import MANIFEST, read_manifest
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages import pack
from jacobi_forcing.training.layout import deinterleave
from jacobi_forcing.training.schedule import nearest_state, scheduled_ratios

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


def packed_rows(source, out, **settings):
    pack.run(pack_config(source, out, **settings))
    return read_packed(out, BLOCK)


@pytest.mark.parametrize("schedule", ["progressive", "random", "reverse"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(source, tmp_path, schedule):
    settings = {"schedule": schedule, "phase": "random", "copies": 2, "window": 3}
    first = packed_bytes(source, tmp_path / "a", **settings)
    assert len(first) == 5
    assert packed_bytes(source, tmp_path / "b", **settings) == first
    other = packed_bytes(source, tmp_path / "c", seed=1, **settings)
    assert all(other[name] != first[name] for name in first)


def test_processes_and_their_order_do_not_change_the_bytes(source, tmp_path, monkeypatch):
    """The reference merges rows as they come and swallows answers into prompts."""
    settings = {"phase": "random", "schedule": "random", "copies": 2}
    first = packed_bytes(source, tmp_path / "a", **settings)
    assert packed_bytes(source, tmp_path / "b", workers=2, **settings) == first
    monkeypatch.setattr(pack, "shard_paths", lambda folder: shard_paths(folder)[::-1])
    assert packed_bytes(source, tmp_path / "c", **settings) == first


def test_which_shard_a_trajectory_lies_in_does_not_change_its_rows(trajectories, source, tmp_path):
    settings = {"phase": "random", "schedule": "random"}
    other = write_trajectories(tmp_path / "other", trajectories[::-1], BLOCK, per_shard=7)
    rows = packed_rows(other, tmp_path / "b", **settings)
    assert rows[::-1] == packed_rows(source, tmp_path / "a", **settings)


def test_every_row_has_its_own_prompt_and_all_blocks_of_its_answer_in_order(
    trajectories, source, tmp_path
):
    rows = packed_rows(source, tmp_path, copies=2, phase="random")
    assert [row.prompt_index for row in rows] == [i for i in range(23) for _ in range(2)]
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
    for row in packed_rows(source, tmp_path, window=3, min_noise_ratio=0.25):
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
    for row in packed_rows(source, tmp_path, copies=6, phase="random", window=5):
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
    rows = packed_rows(
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
    rows = {r.prompt_index: r for r in packed_rows(source, tmp_path, max_length=max_length)}
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
    with pytest.raises(DataError, match=r"no trajectory is left.* 4 collected.* 2 ended with EOS"):
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
    expected = packed_rows(few, tmp_path / "fresh")
    packed_rows(source, tmp_path / "out")
    assert packed_rows(few, tmp_path / "out") == expected
    assert read_manifest(tmp_path / "out", "pack")["num_sequences"] == len(expected)


def test_packing_over_the_trajectories_themselves_is_refused(trajectories, tmp_path):
    source = write_trajectories(tmp_path, trajectories, BLOCK)
    before = {shard.name: sha256(shard) for shard in shard_paths(source)}
    with pytest.raises(ConfigError, match="--out"):
        pack.run(pack_config(source, source / ".." / source.name))
    assert {shard.name: sha256(shard) for shard in shard_paths(source)} == before


def test_the_manifest_lists_every_shard_with_its_hash(source, tmp_path):
    shards = packed_bytes(source, tmp_path, window=6)
    manifest = read_manifest(tmp_path, "pack")
    assert manifest["shards"] == shards
    assert (manifest["window"], manifest["block_size"], manifest["num_prompts"]) == (6, BLOCK, 23)
