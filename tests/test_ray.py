"""Collecting with Ray: a real local cluster of two workers, one of which is killed at work."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toys import save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.data.files import sha256
from jacobi_forcing.data.trajectories import read_all

NUM_PROMPTS = 96


def command(model, prompts, out, *more):
    base = ["collect", "--model", model, "--prompts", prompts, "--out", out, "--threads", 1]
    sizes = ["--block-size", 4, "--max-new-tokens", 64, "--shard-prompts", 10]
    return [str(a) for a in (*base, *sizes, "--min-answer-tokens", 9, "--batch-size", 2, *more)]


def workers(process):
    """The Ray workers at decoding below a process: what is below its raylet and has our actor."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    below, found = [process.pid], []
    while below:
        pid = below.pop()
        below += children.get(pid, [])
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"MapBatches(_Actor)" in title:
            found.append(pid)
    return found


def content(folder):
    return {p.name: sha256(p) for p in [*folder.glob("*.parquet"), folder / "report.json"]}


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(tmp_path):
    pytest.importorskip("ray.data", reason="needs Ray: pip install 'jacobi-forcing[ray]'")
    toy = save_toy(tmp_path / "model", max_position_embeddings=128)
    rng = random.Random(2)
    texts = [
        " ".join(f"w{rng.randrange(2, 64)}" for _ in range(n % 20 + 2)) for n in range(NUM_PROMPTS)
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": t, "id": i}) + "\n" for i, t in enumerate(texts))
    )
    assert main(command(toy, prompts, tmp_path / "whole")) == 0

    out, log = tmp_path / "out", tmp_path / "log"
    line = [sys.executable, "-m", "jacobi_forcing"]
    line += command(toy, prompts, out, "--engine", "ray", "--num-engines", 2)
    with log.open("w") as output:
        # Ray's workers yield to all others by default, on a busy machine for minutes.
        env = os.environ | {"RAY_worker_niceness": "0"}
        process = subprocess.Popen(line, stdout=output, stderr=output, env=env)
        try:
            end, killed = time.monotonic() + 500, []
            while process.poll() is None:
                assert time.monotonic() < end, log.read_text()
                found = workers(process)
                # Two are at work, and some results are there, but not all.
                if not killed and len(found) == 2 and list(out.glob("*.journal")):
                    killed = found[:1]
                    os.kill(killed[0], signal.SIGKILL)
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, log.read_text()
    assert killed, "it was done before a worker could be killed"
    assert content(out) == content(tmp_path / "whole")
    assert len(list(read_all(out))) > NUM_PROMPTS / 2
    assert "died" in log.read_text(), "Ray says that it lost an actor"


def test_without_ray_it_says_what_to_install(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    toy = save_toy(tmp_path / "model", max_position_embeddings=128)
    line = refused(*command(toy, "self:3", tmp_path / "out", "--engine", "ray"))
    assert "Install 'jacobi-forcing[ray]'" in line
    assert not (tmp_path / "out").exists()
