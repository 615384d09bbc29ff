"""Properties of where prompts come from: files of every kind, standard input, and never a guess."""

import bz2
import gzip
import io
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jacobi_forcing.data import sources
from jacobi_forcing.data.sources import count_records, kind_of, read_records
from jacobi_forcing.errors import DataError

RECORDS = [{"prompt": f"w{number}", "id": number} for number in range(2, 9)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def no_hub(monkeypatch):
    """Asking the hub fails the test."""

    def asked(name):
        raise AssertionError(f"the hub was asked for {name}")

    monkeypatch.setattr(sources, "_data_set", asked)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("A.JSONL", LINES),
        ("a.ndjson", LINES),
        ("no suffix, and a comma", LINES),
        ("a.json", LINES),
        ("b.json", json.dumps(RECORDS).encode()),
        ("c.json", json.dumps(RECORDS, indent=2).encode()),
        ("with a mark.jsonl", b"\xef\xbb\xbf" + LINES),
        ("with a mark.json", b"\xef\xbb\xbf" + json.dumps(RECORDS).encode()),
        ("from windows.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
        ("no end.jsonl", LINES.rstrip()),
        ("gaps.jsonl", b"\n \n" + LINES.replace(b"\n", b"\n\n")),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("two members.jsonl.gz", gzip.compress(LINES[:40]) + gzip.compress(LINES[40:])),
        ("b.json.gz", gzip.compress(json.dumps(RECORDS).encode())),
        ("a.jsonl.zst", zstd(LINES)),
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("bundled:3", LINES),  # a file is a file, whatever its name could mean
        ("self:3", LINES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_any_kind_holds_the_same_records(name, content, tmp_path, no_hub):
    path = tmp_path / name
    path.write_bytes(content)
    found = list(read_records(str(path)))
    assert [record for _, record in found] == RECORDS
    assert all(where.startswith(f"{path}:") for where, _ in found)
    assert count_records(str(path)) == len(RECORDS)


def test_parquet_and_a_single_object_are_read_too(tmp_path, no_hub):
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    assert [r for _, r in read_records(str(tmp_path / "a.parquet"))] == RECORDS
    (tmp_path / "one.json").write_text(json.dumps(RECORDS[0], indent=2))
    assert [r for _, r in read_records(str(tmp_path / "one.json"))] == RECORDS[:1]


def test_standard_input_and_pipes_are_read(tmp_path, monkeypatch, no_hub):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    found = list(read_records("-"))
    assert [record for _, record in found] == RECORDS
    assert found[-1][0] == "standard input:7"
    read, write = os.pipe()
    os.write(write, LINES)
    os.close(write)
    assert [r for _, r in read_records(f"/dev/fd/{read}")] == RECORDS
    os.close(read)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b'{"prompt": "\xff"}', ":1", "'utf-8' codec"),
        ('{"prompt": "w2"}\n'.encode("utf-16"), ":1", "'utf-8' codec"),
        (b'{"prompt": "w2"}\n' + b"[" * 100_000 + b"]" * 100_000, ":2", "nested too deeply"),
        (b'{"a":' * 100_000, ":1", "nested too deeply"),
        (b'{"prompt": "w2", "id": ' + b"9" * 5000 + b"}", ":1", "Exceeds the limit"),
        (b'{"prompt": "w2", "score": NaN}', ":1", "NaN is no JSON number"),
        (b'{"prompt": "w2", "score": -Infinity}', ":1", "-Infinity is no JSON number"),
        (b'\n{"prompt": "w2", "prompt": "w3"}', ":2", "has the key 'prompt' twice"),
        (b'{"prompt": "w2", "x": {"a": 1, "a": 1}}', ":1", "has the key 'a' twice"),
        (b'{"prompt": "w2 \\ud800"}', ":1", "surrogates not allowed"),
        (b'{"prompt": "w2", "id": "\\udfff"}', ":1", "surrogates not allowed"),
        (b'{"prompt": "w\0"}', ":1", "Invalid control character"),
        (b"\0\0\0", ":1", "Expecting value"),
        (b'{"prompt": "w2"}\r{"prompt": "w3"}', ":1", "Extra data"),
        (b'{"prompt": "w2"}\n{"prompt": "w', ":2", "Unterminated string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_broken_line_is_named(content, place, message, packed, tmp_path):
    path = tmp_path / f"p.jsonl{'.gz' * packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError) as refused:
        list(read_records(str(path)))
    assert str(refused.value).startswith(f"{path}{place}: not valid JSON: ")
    assert message in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("z.jsonl.gz", LINES, "cannot read"),
        ("cut.jsonl.gz", gzip.compress(LINES * 99)[:-20], "cannot read"),
        ("cut.jsonl.zst", zstd(LINES * 99)[:-20], "cannot read"),
        ("text.parquet", b"no parquet", "not a readable Parquet file"),
        ("broken.json", b'[{"prompt": "w2"},\n{"prompt" "w3"}]', "line 2"),
        ("table.csv", b"prompt\nw2\n", "of a kind that is not read here"),
        ("text.txt", b"w2\n", "of a kind that is not read here"),
        ("a.parquet.gz", b"", "not a readable Parquet file"),
        ("a.zip", b"PK", "of a kind that is not read here"),
        ("weights.safetensors", b"", "of a kind that is not read here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unreadable_file_is_refused_as_a_file(name, content, message, tmp_path, no_hub):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        list(read_records(str(path)))
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *("missing.jsonl", "missing.jsonl.gz", "data/missing.JSON", "missing.parquet", "m.csv"),
        *("./missing", "/no/such/file", "~/prompts", "a/b/c", "prompts for today", "here/missing"),
        *("a,b.jsonl", "C:\\data\\p", "", "über", "self3.jsonl", "bundled.jsonl", "x\0y"),
    ],
)
def test_a_file_that_is_not_there_never_reaches_the_hub(name, tmp_path, monkeypatch, no_hub):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(DataError, match="No such file"):
        list(read_records(name))


def test_names_of_data_sets_and_generated_prompts_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["gsm8k", "openai/gsm8k", "teknium/OpenHermes-2.5", "HuggingFaceH4/ultrachat_200k"]
    assert [kind_of(name) for name in names] == ["hub"] * 4
    assert [kind_of(name) for name in ("self:5", "bundled:code:3", "-", ".")] == [
        *("self", "bundled", "stdin", "folder")
    ]
