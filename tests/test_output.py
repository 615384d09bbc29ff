"""Properties of what commands print: any encoding, closed streams, readers that leave."""

import io
import json
import os
import shlex
import subprocess
import sys

import pytest
from toys import save_toy

from jacobi_forcing import output
from jacobi_forcing.cli import STAGES, main
from jacobi_forcing.stages import decode

TEXT = "café → 😀 \ud800\tx"  # an accent, an arrow, beyond 16 bits, half of a pair


@pytest.fixture
def answered(monkeypatch):
    """`jacobi decode --json` gives TEXT, through all of the command line."""

    def run(config):
        sys.stdout.write(json.dumps({"text": TEXT}, ensure_ascii=False) + "\n")

    monkeypatch.setattr(decode, "run", run)
    return lambda: main(["decode", "--json", "--prompt", "x"])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16", "shift_jis"])
def test_what_an_encoding_lacks_is_escaped_and_json_stays_json(encoding, answered, monkeypatch):
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding=encoding))
    assert answered() == 0
    assert json.loads(data.getvalue().decode(encoding))["text"] == TEXT


def test_closed_streams_swallow_and_read_as_empty(answered, monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert answered() == 0
    assert sys.stdin.read() == ""


class Full(io.RawIOBase):
    """A device that takes nothing."""

    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def write(self, data):
        raise self.error

    def fileno(self):
        return 99


@pytest.mark.parametrize(
    ("error", "says"),
    [(BrokenPipeError(32, "Broken pipe"), False), (OSError(28, "No space left on device"), True)],
)
def test_an_output_that_nobody_reads_is_no_success(error, says, answered, monkeypatch, capsys):
    moved = []
    monkeypatch.setattr(output.os, "dup2", lambda *numbers: moved.append(numbers[1]))
    stream = io.TextIOWrapper(io.BufferedWriter(Full(error)))
    monkeypatch.setattr(sys, "stdout", stream)
    assert answered() == 1
    assert moved == [99]
    assert ("No space left" in capsys.readouterr().err) == says
    stream.buffer.raw.write = len  # let it be closed


def shell(arguments, ending, folder, **environment):
    """Run a command with what follows it on a line; return its code and what was printed."""
    command = f"{shlex.quote(sys.executable)} -m jacobi_forcing {arguments} {ending}"
    found = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}} > {folder}/code"],
        capture_output=True,
        text=True,
        input="w5 w6\nw7\n",
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | environment,
    )
    return int((folder / "code").read_text()), found.stdout, found.stderr


GONE = "| (exec <&-; sleep 0.5)"  # a reader that leaves at once


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    ("arguments", "ending", "codes"),
    [
        ("--help", GONE, (1,)),
        ("--version", ">&-", (0,)),
        ("--version", "> /dev/full", (1,)),
        ("collect --model m --prompts p --out o --block-size 1", f"2>&1 {GONE}", (1, 2)),
    ],
)
def test_commands_end_quietly_where_nobody_reads(arguments, ending, codes, unbuffered, tmp_path):
    more = {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    code, _, said = shell(arguments, ending, tmp_path, **more)
    assert code in (*codes, 0) if unbuffered else codes  # argparse forgives what is written at once
    for word in ("Traceback", "Exception ignored", "Broken pipe"):
        assert word not in said


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["decode", "chat", "demo", "evaluate"])
def test_answers_reach_a_terminal_without_their_characters(stage, tmp_path):
    """The whole command, in an encoding of few characters, and without any output."""
    path = save_toy(tmp_path / "model")
    (path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    commands = {
        "decode": f"decode --model {path} --prompt 'w5 w6' --max-new-tokens 8",
        "chat": f"chat --model {path} --max-new-tokens 8",
        "demo": f"demo --num-problems 1 --html {tmp_path}/demo.html",
        "evaluate": "evaluate --problems bundled:math --limit 1",
    }
    assert set(commands) <= set(STAGES)
    endings = ("", ">&-", GONE)  # importing torch takes seconds every time
    for ending in (*endings, "2>&-", "> /dev/full") if stage == "decode" else endings:
        code, out, said = shell(commands[stage], ending, tmp_path, PYTHONIOENCODING="ascii")
        for word in ("Traceback", "Exception ignored", "Broken pipe"):
            assert word not in said
        assert code in ((1, 2) if ending in ("> /dev/full", GONE) else (0,)), (ending, said)
        assert bool(out) == (ending in ("", "2>&-"))
