"""One thread per test process, and the shared real model where it lies beside the project."""

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("JACOBI_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Toy models are too small for more; oversubscribed threads are several times slower.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stories() -> Path:
    """The real 260k-parameter model."""
    path = SHARED / "models" / "stories260K"
    if not path.exists():
        pytest.skip(f"needs {path}; set JACOBI_SHARED to the folder that holds models/stories260K")
    return path
