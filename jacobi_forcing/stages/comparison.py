"""What the rounds of a recipe came to, read from the files that their stages left."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jacobi_forcing.config import EvaluateConfig
from jacobi_forcing.data.files import read_json
from jacobi_forcing.data.record import RECORD
from jacobi_forcing.data.trajectories import MANIFEST
from jacobi_forcing.drawing.rounds import Comparison, Learned, Model
from jacobi_forcing.drawing.training import PAGE as TRAINING_PAGE
from jacobi_forcing.evaluation import PAGE, SUMMARY
from jacobi_forcing.stages.recipe import Recipe, Round

_WIRES = ("model", "out", "packed", "trajectories", "mix")  # what joins the stages
_TESTED = ("tokens_per_forward", "accuracy", "nll", "distinct_8grams")


def compared(recipe: Recipe, num_rounds: int) -> Comparison:
    """Compare the start, the first `num_rounds` rounds, and the average if it is there."""
    done = recipe.rounds[:num_rounds]
    learned = [_learned(recipe, stages) for stages in done]
    first = next(iter(learned[0].trainings.values()))
    links = _links(recipe, {"evaluation": _report_path(recipe.start)})
    models = [Model("start", _report(recipe.start), _tested(first["before"]), links)]
    for stages, round_ in zip(done, learned, strict=True):
        models += _models(recipe, stages, round_)
    if recipe.average is not None and (Path(recipe.average.out) / RECORD).exists():
        record = Path(recipe.average.out) / RECORD
        links = _links(recipe, {"weights": record, "evaluation": _report_path(recipe.evaluate)})
        models.append(Model("average", _report(recipe.evaluate), None, links))
    return Comparison(recipe.model, len(recipe.rounds), models, learned)


def _models(recipe: Recipe, stages: Round, learned: Learned) -> list[Model]:
    """Give a round's model, and behind it the members that it is the mean of."""
    tests = {name: _tested(record["after"]) for name, record in learned.trainings.items()}
    is_mean = stages.average is not None
    files = {
        "weights" if is_mean else "training": stages.model / (RECORD if is_mean else TRAINING_PAGE),
        "evaluation": _report_path(stages.evaluate),
    }
    whole = Model(
        stages.name, _report(stages.evaluate), tests.get(stages.name), _links(recipe, files)
    )
    if not is_mean:
        return [whole]
    pages = [{"training": Path(config.out) / TRAINING_PAGE} for config in stages.trains]
    members = zip(tests.items(), pages, strict=True)
    return [whole, *(Model(n, None, t, _links(recipe, p), True) for (n, t), p in members)]


def _learned(recipe: Recipe, stages: Round) -> Learned:
    records = [read_json(Path(config.out) / RECORD) for config in stages.trains]
    names = [f"{stages.name}, member {number}" for number in range(1, len(records) + 1)]
    pages = {
        "collection": Path(stages.collect.out) / "report.html",
        "packed": Path(stages.pack.html or Path(stages.pack.out) / MANIFEST),
    }
    own, *mixed = stages.pack.folders
    by_folder = {other.collect.out: other.name for other in recipe.rounds}
    return Learned(
        name=stages.name,
        collected=_manifest(own),
        packed=_manifest(stages.pack.out),
        mixed=[by_folder[folder] for folder in mixed],
        trainings=dict(zip(names if stages.average else [stages.name], records, strict=True)),
        settings=_settings(stages),
        links=_links(recipe, pages),
    )


def _manifest(folder: str) -> dict[str, Any]:
    """Read a folder's manifest; empty where the folder has been cleared away since."""
    path = Path(folder) / MANIFEST
    return read_json(path) if path.exists() else {}


def _settings(stages: Round) -> dict[str, Any]:
    """Name all settings of a round but those that join its stages."""
    configs = {"collect": stages.collect, "pack": stages.pack, "train": stages.trains[0]}
    if stages.evaluate is not None:
        configs["evaluate"] = stages.evaluate
    found: dict[str, Any] = {
        "members": len(stages.trains),
        "mix_earlier": len(stages.pack.folders) - 1,
    }
    for stage, config in configs.items():
        values = asdict(config).items()
        found |= {f"{stage}.{name}": value for name, value in values if name not in _WIRES}
    return found


def _report(config: EvaluateConfig | None) -> dict | None:
    """Read what an evaluation wrote; None where there was none, or it is still to come."""
    path = Path(config.out) / SUMMARY if config else None
    return read_json(path) if path and path.exists() else None


def _report_path(config: EvaluateConfig | None) -> Path | None:
    return Path(config.out) / PAGE if config else None


def _tested(found: dict[str, float]) -> dict[str, float]:
    return {name: found[name] for name in _TESTED if name in found}


def _links(recipe: Recipe, files: dict[str, Path | None]) -> dict[str, str]:
    """Say where files lie beside the page; those that are missing are left out."""
    there = {name: path for name, path in files.items() if path and path.exists()}
    return {
        name: Path(os.path.relpath(path, recipe.out)).as_posix() for name, path in there.items()
    }
