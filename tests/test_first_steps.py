"""From a clone to one's own evaluation, by the commands of the first page as they stand there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jacobi_forcing.cli import parse
from jacobi_forcing.stages.recipe import read_recipe

ROOT = Path(__file__).parent.parent
SHOWN = ("git clone", "make demo", ". .venv/bin/activate", "jacobi force", "jacobi evaluate")


def first_commands(text: str) -> list[str]:
    """The commands of the page that lead to the first evaluation, in order, as one would type."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    shell = "".join(block for language, block in blocks if not language)
    lines = shell.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(SHOWN)]


def prepared(clone: Path) -> None:
    """Stand in for what `make demo` installs from a package index: this environment."""
    venv = clone / ".venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    (venv / ".installed").touch()  # newer than what it depends on, so nothing is installed


def test_five_commands_lead_to_an_evaluation_and_mean_something():
    commands = first_commands((ROOT / "docs" / "index.md").read_text())
    assert len(commands) <= 5
    assert [shown for line in commands for shown in SHOWN if line.startswith(shown)] == list(SHOWN)
    for line in commands:
        if line.startswith("jacobi "):
            parse(shlex.split(line)[1:])
    recipe = read_recipe(ROOT / "recipes/tiny/first.toml", {})
    evaluated = shlex.split(commands[-1])
    assert evaluated[evaluated.index("--model") + 1] == str(recipe.rounds[-1].model)


@pytest.mark.slow(reason="trains: five minutes of a core")
def test_five_commands_lead_from_a_clone_to_an_evaluation_of_ones_own(tmp_path):
    bin_folder = Path(sys.executable).parent
    for needed in (ROOT / ".git", bin_folder / "activate", bin_folder / "jacobi"):
        if not needed.exists():
            pytest.skip(f"needs {needed}: a clone, and the package in a virtual environment")
    commands = first_commands((ROOT / "docs" / "index.md").read_text())
    clone = tmp_path / "jacobi-forcing"
    get, *others = commands
    assert re.fullmatch(r"git clone <this repository> (\S+) && cd \1", get)

    def shell(*lines: str, folder: Path) -> str:
        result = subprocess.run(
            ["bash", "-ec", "\n".join(lines)],
            cwd=folder,
            # The package of the clone, and none of what this test runs in.
            env=os.environ | {"PYTHONPATH": str(clone), "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    shell(get.replace("<this repository>", str(ROOT)), folder=tmp_path)
    prepared(clone)
    printed = shell(*others, folder=clone)
    assert (clone / "demo.html").stat().st_size > 10_000
    assert (clone / "runs/first/round-1/model/model.safetensors").exists()
    assert (clone / "results/report.html").exists()
    assert "tiny-base" in printed
