"""The published sets where they lie beside the project, and a sandbox for their programs."""

import pytest
from conftest import SHARED

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.problems.published import SETS
from jacobi_forcing.problems.published.mbpp import Mbpp
from jacobi_forcing.problems.published.sources import read_lines
from jacobi_forcing.sandbox import Sandbox

DATA = SHARED / "data"
FILES = {name: DATA / chosen.source.file for name, chosen in SETS.items()}


class AllOfMbpp(Mbpp):
    first, last = 1, 974


def all_questions(name):
    """All questions of a set; of MBPP those of the other splits too."""
    if not FILES[name].exists():
        pytest.skip(f"needs {FILES[name]}; set JACOBI_SHARED to the folder that holds data/")
    if name == "math500":
        pytest.importorskip("math_verify", reason="needs the evaluate extra")
    return (AllOfMbpp() if name == "mbpp" else SETS[name]).read(read_lines(FILES[name]))


def asked_questions(name):
    """The questions of the split that a model is asked."""
    questions = all_questions(name)
    return questions[10:510] if name == "mbpp" else questions


def open_sandbox():
    try:
        return Sandbox()
    except ConfigError:  # such as in a container; what runs here is known
        return Sandbox("limits")
