"""What a GPU is rented for runs to its end: here all of it, small, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("compiler", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_every_part_writes_its_figures(tmp_path, compiler):
    """Without a compiler, what would be compiled is called as it is."""
    script = ROOT / "benchmarks" / "gpu" / "run_all.sh"
    found = subprocess.run(
        ["bash", script, "--smoke", "--out", tmp_path],
        env=os.environ
        | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        | {"TORCHDYNAMO_DISABLE": str(int(compiler == "off"))},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    parts = ("exactness", "step_time", "ar_vs_jacobi", "flex_training", "attention", "train_step")
    for part in parts:
        assert f"== {part}\n" in found.stdout
        result = json.loads((tmp_path / f"gpu_{part}.json").read_text())
        assert result["rows"], part
        assert result["hardware"]["cpu"]
        assert not result.get("left_out"), part
    steps = json.loads((tmp_path / "gpu_step_time.json").read_text())["rows"]
    assert {row["falls_back"] for row in steps if row.get("engine") == "compiled"} == {""}
    unknown = subprocess.run(["bash", script, "--fast"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert "usage" in unknown.stderr
