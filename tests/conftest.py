"""What all tests share: one thread, refusals, the real model where it lies beside the project."""

import gc
import os
import signal
from pathlib import Path

import pytest
import torch
from packs import pack_config, random_trajectories, write_trajectories
from toys import save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.stages import pack

SHARED = Path(os.environ.get("JACOBI_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Toy models are too small for more; oversubscribed threads are several times slower.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal():
    # What runs in the background, or under nohup, ignores them, and its children do.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            is_ctrl_c = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _few_collections():
    # PyTorch and transformers are a million objects to look through: a twentieth of the suite.
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _no_tunings(tmp_path_factory):
    # What someone tuned on this machine would change how many forwards an answer takes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_copies_of_remote_code(tmp_path_factory):
    # transformers copies a checkpoint's code into the user's home, which may not be writable.
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
        yield


@pytest.fixture(scope="session")
def stories() -> Path:
    """The real 260k-parameter model."""
    path = SHARED / "models" / "stories260K"
    if not path.exists():
        pytest.skip(f"needs {path}; set JACOBI_SHARED to the folder that holds models/stories260K")
    return path


@pytest.fixture(scope="session")
def real_model() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, for slow tests."""
    path = Path(os.environ.get("JACOBI_REAL_MODEL", ""))
    if not (path / "config.json").is_file():
        pytest.skip("set JACOBI_REAL_MODEL to a folder with SmolLM2-135M-Instruct")
    return path


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused; return its one line."""

    def run(*arguments):
        stage, *rest = map(str, arguments)
        capsys.readouterr()
        assert main([stage, *rest]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        # Other libraries may warn in this process; the two tests with `-m` allow no second line.
        ours = [line for line in lines if line.startswith(f"jacobi {stage}: ")]
        assert len(ours) == 1
        assert lines[-1] == ours[0]
        assert "Traceback" not in "".join(lines)
        return ours[0]

    return run


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A toy model's folder."""
    return save_toy(tmp_path_factory.mktemp("toy"), max_position_embeddings=96)


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """Its packed sequences, two of each of 14 prompts."""
    source = write_trajectories(tmp_path_factory.mktemp("in"), random_trajectories(2, 14, 4))
    return pack.run(
        pack_config(source, tmp_path_factory.mktemp("packed"), window=3, copies=2, phase="random")
    )
