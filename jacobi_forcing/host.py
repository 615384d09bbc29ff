"""What this process runs on: the processor, its cores, a GPU, and the packages that decide results.

May import: nothing of this project.
"""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jacobi-forcing", "torch", "transformers", "accelerate", "pyarrow", "safetensors")


def user_cache() -> Path:
    """Returns the folder of what may be forgotten: `~/.cache/jacobi-forcing`, or XDG's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jacobi-forcing"


def versions() -> dict[str, str]:
    """Give the versions of Python and the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Describe the processor, cores, threads and GPU in use."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def cpu_name() -> str:
    """Name the processor; nothing where that is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
