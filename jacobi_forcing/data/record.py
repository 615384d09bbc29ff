"""What a run was: settings, versions, hardware, commit, inputs. Saved beside every output."""

import dataclasses
import os
import platform
import subprocess
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from jacobi_forcing.data.files import read_json, write_json
from jacobi_forcing.errors import ConfigError

RECORD = "run.json"  # beside a checkpoint
PACKAGES = ("jacobi-forcing", "torch", "transformers", "accelerate", "pyarrow", "safetensors")


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
        ConfigError: The folder was begun with other facts; it is left as it is.
    """
    path = out / "settings.json"
    if path.exists():
        refuse_change(path, facts, read_json(path), free=free)
    else:
        write_json(path, {name: value for name, value in facts.items() if name not in free})


def refuse_change(path: Path, facts: dict, begun_with: dict, *, free: Collection[str]) -> None:
    """Raise ConfigError where a fact that is not free differs from the one noted in `path`."""
    for name, ours in facts.items():
        theirs = begun_with.get(name)
        if name not in free and ours != theirs:
            raise ConfigError(
                f"{path}: was begun with {name} = {theirs!r}, now it is {ours!r}. Use the same to "
                "continue, or another output folder."
            )


def versions() -> dict[str, str]:
    """Give the versions of Python and the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """Name the source tree's commit, `-dirty` where it has changes; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def hardware() -> dict[str, Any]:
    """Describe the processor, cores, threads and GPU in use."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
