"""What the README says works as written, and its figures are those of the result files."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jacobi_forcing.cli import build_parser
from jacobi_forcing.models.loading import BUNDLED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line.split("#")[0].strip() for _, block in BLOCKS for line in block.splitlines()]
    return [line for line in lines if line.startswith("jacobi ")]


def test_every_jacobi_command_in_the_readme_has_valid_flags():
    parser = build_parser()
    stages = {parser.parse_args(shlex.split(line)[1:]).stage for line in commands()}
    assert stages == {"collect", "pack", "train", "decode", "chat", "evaluate", "force"}


@pytest.mark.parametrize(
    ("name", "right"), [("quickstart.py", "Answer: 84 plums"), ("stream.py", "return summed")]
)
def test_examples_run_and_the_bundled_model_solves_them(name, right):
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / name],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "tokens" in result.stdout
    assert right in result.stdout


def test_the_python_block_is_the_quickstart_example():
    block = next(block for language, block in BLOCKS if language == "python")
    code = {line.strip() for line in (ROOT / "examples/quickstart.py").read_text().splitlines()}
    calls = [line.strip() for line in block.splitlines() if "jf." in line or "print" in line]
    assert len(calls) >= 4
    for line in calls:
        assert line.split("  #")[0] in code


def test_tables_are_those_of_the_result_files():
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks/tables.py", "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_path_of_the_file_map_and_every_link_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if not link.startswith("http")]
    assert len(local) > 5
    for link in local:
        assert (ROOT / link).exists(), link


def test_the_bundled_pair_is_small_and_safe():
    total = 0
    for path in BUNDLED.values():
        assert (path / "model.safetensors").exists()
        assert not list(path.glob("*.bin"))
        total += sum(file.stat().st_size for file in path.iterdir())
    assert total < 40e6


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_takes_an_environment_in_a_path_with_spaces(tmp_path):
    environment = tmp_path / "of a user"

    def make(*arguments):
        command = ["make", "-C", ROOT, "--no-print-directory", f"VENV={environment}", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert make("-q", "setup").returncode == 1  # is to be made
    environment.mkdir()
    (environment / ".installed").touch()
    assert make("-q", "setup").returncode == 0  # is found
    programs = [shlex.split(line)[0] for line in make("-n", "lint", "demo").stdout.splitlines()]
    assert programs == [f"{environment}/bin/{name}" for name in ("ruff", "ruff", "jacobi")]
