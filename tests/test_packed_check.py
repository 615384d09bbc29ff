"""Looking through a packed folder: whatever is changed in it is found and named."""

import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packs import pack_config, random_trajectories, write_trajectories
from toys import PAD, VOCAB, save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.config import PackConfig
from jacobi_forcing.data.files import read_json, read_rows, sha256, shard_paths, write_json
from jacobi_forcing.data.packed import SCHEMA
from jacobi_forcing.data.trajectories import MANIFEST
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages import pack

BLOCK = 4
SETTINGS = {"max_length": 100, "sequence_prompts": 0, "window": 3, "max_noise_ratio": 0.9}


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory):
    made = random_trajectories(0, 40, BLOCK)
    return write_trajectories(tmp_path_factory.mktemp("trajectories"), made, BLOCK, per_shard=20)


@pytest.fixture(scope="module")
def packed(trajectories, tmp_path_factory):
    return pack.run(pack_config(trajectories, tmp_path_factory.mktemp("packed"), **SETTINGS))


@pytest.fixture
def folder(packed, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(packed, tmp_path / "packed")


def look_through(folder, **settings):
    return pack.run(PackConfig(check=str(folder), **settings))


def rewrite_manifest(folder, **facts):
    """Change facts, and list the files as they are now."""
    shards = {shard.name: sha256(shard) for shard in shard_paths(folder)}
    write_json(folder / MANIFEST, read_json(folder / MANIFEST) | {"shards": shards} | facts)


def rewrite(folder, change):
    """Let `change` spoil the rows of the second file, and the manifest know the new hash."""
    shard = shard_paths(folder)[1]
    rows = read_rows(shard)
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), shard)
    rewrite_manifest(folder)


def refusal(folder, **settings):
    with pytest.raises(DataError) as error:
        look_through(folder, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "random", "phase": "random", "copies": 3},
        {"sequence_prompts": 1, "min_noise_ratio": 0.3, "max_noise_ratio": 1.0},
        {"sequence_prompts": 2, "max_length": 17},
    ],
)
def test_what_pack_writes_is_found_to_be_whole(trajectories, tmp_path, settings, caplog):
    caplog.set_level("INFO")
    out = pack.run(pack_config(trajectories, tmp_path / "out", **SETTINGS | settings))
    assert look_through(out) == out
    rows = [row for shard in shard_paths(out) for row in read_rows(shard)]
    num_documents = sum(len(row["prompt_index"]) for row in rows)
    assert f"{num_documents} in {len(rows)} sequences" in caplog.text
    assert num_documents > 20


def in_row(number, document, column, change):
    """Change one value of one document."""

    def spoil(rows):
        rows[number][column][document] = change(rows[number][column][document])

    return spoil


def set_at(place, value):
    return lambda values: [*values[:place], value, *values[place + 1 :]]


def last_pad_is_another_id(rows):
    number, document = next(
        (r, d)
        for r, row in enumerate(rows)
        for d, ids in enumerate(row["input_ids"])
        if ids[-1] == PAD and row["noise_ratios"][d][-1] > 0
    )
    rows[number]["input_ids"][document][-1] = 7


def noise_where_none_was_asked_for(rows):
    ids = rows[1]["input_ids"][0]
    assert rows[1]["noise_ratios"][0][0] == 0
    ids[rows[1]["prompt_length"][0]] = ids[rows[1]["prompt_length"][0]] % 60 + 2


def one_column_short(rows):
    rows[1]["answer_length"] = rows[1]["answer_length"][:-1]


def two_in_one(rows):
    for column in SCHEMA.names:
        rows[1][column] += rows[2][column]


STRUCTURE = {
    "a token is missing": (in_row(1, 1, "input_ids", lambda ids: ids[:-1]), "block size of 4"),
    "a block is missing": (in_row(1, 1, "input_ids", lambda ids: ids[:-4]), "block size of 4"),
    "the prompt is longer": (in_row(1, 1, "prompt_length", lambda p: p + 1), "block size of 4"),
    "the prompt is empty": (in_row(1, 0, "prompt_length", lambda p: 0), "behind a prompt of 0"),
    "a ratio is missing": (in_row(1, 1, "noise_ratios", lambda r: r[:-1]), "block size of 4"),
    "the answer is longer": (
        in_row(1, 1, "answer_length", lambda length: length + BLOCK),
        "which does not end in its last block",
    ),
    "the answer is empty": (
        in_row(1, 0, "answer_length", lambda length: 0),
        "an answer of 0 tokens, which does not end in its last block",
    ),
    "a ratio is too high": (in_row(1, 1, "noise_ratios", set_at(0, 0.95)), "from 0 to 0.9"),
    "a ratio is no number": (
        in_row(1, 1, "noise_ratios", set_at(0, float("nan"))),
        "from 0 to 0.9",
    ),
    "an id is negative": (in_row(1, 1, "input_ids", set_at(3, -1)), "token 3 is -1"),
    "a prompt index is negative": (in_row(1, 1, "prompt_index", lambda i: -5), "index -5"),
    "noise without being asked": (noise_where_none_was_asked_for, "no noise was asked for"),
    "two padding ids": (last_pad_is_another_id, "than the padding 1"),
    "a sequence is too long": (two_in_one, "more than max_length 100"),
}


@pytest.mark.parametrize("kind", STRUCTURE)
def test_a_broken_document_is_named_by_file_row_and_number(folder, kind):
    change, message = STRUCTURE[kind]
    rewrite(folder, change)
    line = refusal(folder)
    assert message in line
    assert re.search(r"part-00001\.parquet: row \d+, document \d+: ", line)
    if kind not in ("two padding ids", "noise without being asked"):
        assert "part-00001.parquet: row 1, document " in line


FILES = {
    "columns of different lengths": (one_column_short, "answer_length has not one entry"),
    "an empty row": (lambda rows: rows[2].update({n: [] for n in SCHEMA.names}), "no document"),
    "a null": (lambda rows: rows[2].update(input_ids=None), "input_ids: holds a null"),
    "a row more": (lambda rows: rows.append(rows[0]), "num_sequences is"),
    "a row less": (lambda rows: rows.pop(), "num_sequences is"),
    "a prompt twice": (in_row(0, 0, "prompt_index", lambda i: 0), "prompt 0 is packed 2 times"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_do_not_go_together_are_refused(folder, kind):
    change, message = FILES[kind]
    rewrite(folder, change)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shard: shard.write_bytes(shard.read_bytes()[:-30]), "is not the file that"),
        (lambda shard: shard.unlink(), "is not the file that"),
        (lambda shard: shutil.copy(shard, shard.with_name("part-00009.parquet")), "part-00009"),
    ],
    ids=["cut", "lost", "more"],
)
def test_files_that_are_not_the_listed_ones_are_named(folder, change, message):
    change(shard_paths(folder)[1])
    assert message in refusal(folder)


def test_a_truncated_file_that_the_manifest_lists_is_named(folder):
    shard = shard_paths(folder)[1]
    shard.write_bytes(shard.read_bytes()[:-30])
    rewrite_manifest(folder)
    assert f"{shard}: not a readable Parquet file" in refusal(folder)


def test_columns_of_another_type_are_named(folder):
    shard = shard_paths(folder)[1]
    rows = [{"prompt_index": row["prompt_index"][0]} for row in read_rows(shard)]
    pq.write_table(pa.Table.from_pylist(rows), shard)
    rewrite_manifest(folder)
    assert f"{shard}: column prompt_index is int64, needed is list" in refusal(folder)


@pytest.mark.parametrize("name", ["block_size", "record", "num_documents", "settings"])
def test_a_manifest_without_a_fact_is_named(folder, name):
    manifest = read_json(folder / MANIFEST)
    del manifest[name]
    write_json(folder / MANIFEST, manifest)
    assert f"manifest.json: has no {name}" in refusal(folder)


@pytest.mark.parametrize("name", ["num_sequences", "num_documents", "num_tokens"])
def test_counts_that_do_not_match_are_named(folder, name):
    rewrite_manifest(folder, **{name: 3})
    assert f"manifest.json: {name} is 3, but the files hold" in refusal(folder)


def test_data_of_an_older_format_is_refused_with_what_to_do(folder):
    manifest = read_json(folder / MANIFEST)
    del manifest["format"]
    write_json(folder / MANIFEST, manifest)
    line = refusal(folder)
    assert "format 1" in line
    assert "Run `jacobi pack` again" in line


def test_with_a_model_ids_beyond_its_vocabulary_are_found(folder, tmp_path):
    toy = save_toy(tmp_path / "toy")
    assert look_through(folder, model=str(toy)) == folder
    rewrite(folder, in_row(1, 1, "input_ids", set_at(2, VOCAB)))
    assert look_through(folder) == folder
    line = refusal(folder, model=str(toy))
    assert f"token 2 is {VOCAB}, ids go from 0 to {VOCAB - 1}" in line


def test_a_model_of_another_tokenizer_is_refused(folder, tmp_path, refused):
    with pytest.raises(ConfigError, match="tiny-base has another tokenizer"):
        look_through(folder, model="tiny-base")


def test_looking_and_packing_do_not_mix(folder, refused):
    line = refused("pack", "--check", folder, "--out", folder)
    assert "Leave out --trajectories and --out" in line
    for arguments in ([], ["--out", "x"], ["--trajectories", "x"], ["--check", ""]):
        assert "must name folders" in refused("pack", *arguments)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["pack", "--check", str(folder)]) == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_record_of_answers_has_no_noise(folder):
    """Noisy blocks of answers repeat the clean ones; here they do not."""
    rewrite_manifest(folder, record="answers")
    assert "no noise was asked for" in refusal(folder)
