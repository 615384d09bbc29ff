"""What a run was: settings, versions, hardware, commit, inputs. Saved beside every output."""

import dataclasses
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jacobi_forcing.data.files import read_json, write_json
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.host import hardware, versions

RECORD = "run.json"  # beside a checkpoint


def run_record(config: Any, **facts: Any) -> dict[str, Any]:
    """Describe a run that was given `config`; `facts` are added as they are."""
    return {
        "stage": type(config).__name__.removesuffix("Config").lower(),
        "settings": dataclasses.asdict(config),
        "command": " ".join(["jacobi", *sys.argv[1:]]) if sys.argv[0].endswith("jacobi") else None,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(),
        **facts,
    }


def claim(out: Path, facts: dict[str, Any], *, free: Collection[str]) -> None:
    """Note in `out/settings.json` what decides the folder's content, before it gets any.

    Args:
        out: The folder.
        facts: Settings and fingerprints of inputs.
        free: Names of facts that may change while the work goes on.

    Raises:
        ConfigError: The folder was begun with other facts, or holds a model that was not made in
            it; it is left as it is.
    """
    path = out / "settings.json"
    refuse_model(out)
    if path.exists():
        refuse_change(path, facts, read_json(path), free=free)
    else:
        write_json(path, {name: value for name, value in facts.items() if name not in free})


def refuse_model(out: Path) -> None:
    """Raise ConfigError where a folder holds a model and no settings: it is somebody's own."""
    if (out / "settings.json").exists():
        return
    found = sorted([*out.glob("config.json"), *out.glob("*.safetensors")])
    if found:
        raise ConfigError(
            f"--out is {out}, which holds {found[0].name} of a model that was not made there; it "
            "would be overwritten. Give another folder."
        )


def refuse_change(path: Path, facts: dict, begun_with: dict, *, free: Collection[str]) -> None:
    """Raise ConfigError where a fact that is not free differs from the one noted in `path`."""
    for name, ours in facts.items():
        theirs = begun_with.get(name)
        if name not in free and ours != theirs:
            raise ConfigError(
                f"{path}: was begun with {name} = {theirs!r}, now it is {ours!r}. Use the same to "
                "continue, or another output folder."
            )


def commit() -> str | None:
    """Name the source tree's commit, `-dirty` where it has changes; None outside a checkout.

    New figures in `benchmarks/results` do not count: they change nothing that runs.
    """
    name = _git("rev-parse", "--short=12", "HEAD").strip()
    changed = _git("status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)benchmarks/results")
    return f"{name}-dirty" if name and changed else name or None


def _git(*arguments: str) -> str:
    """Ask git about the source tree; nothing outside a checkout."""
    folder = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout
