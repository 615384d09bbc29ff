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
from jacobi_forcing.stages.recipe import Recipe, Round
from jacobi_forcing.drawing.training import PAGE

_WIRES = ("model", "out", "packed", "trajectories", "mix", "report")  # what joins the stages
_TESTED = ("tokens_per_forward", "accuracy", "nll", "distinct_8grams")


def compared(recipe: Recipe, num_rounds: int) -> Comparison:
    """Compare the start, the first `num_rounds` rounds, and the average if it is there."""
    done = recipe.rounds[:num_rounds]
    learned = [_learned(recipe, stages) for stages in done]
    first = next(iter(learned[0].trainings.values()))
    models = [Model("start", _report(recipe.start), _tested(first["before"]), {})]
    for stages, round_ in zip(done, learned, strict=True):
        models += _models(recipe, stages, round_)
    if recipe.average is not None and (Path(recipe.average.out) / RECORD).exists():
        links = _links(recipe, {"weights": Path(recipe.average.out) / RECORD})
        models.append(Model("average", _report(recipe.evaluate), None, links))
    return Comparison(recipe.model, len(recipe.rounds), models, learned)


def _models(recipe: Recipe, stages: Round, learned: Learned) -> list[Model]:
    """Give a round's model, and behind it the members that it is the mean of."""
    tests = {name: _tested(record["after"]) for name, record in learned.trainings.items()}
    pages = {name: Path(record["settings"]["out"]) for name, record in learned.trainings.items()}
    found = [
        Model(name, None, tests[name], _links(recipe, {"training": pages[name] / PAGE}), True)
        for name in tests
    ]
    report = stages.evaluate and Path(stages.evaluate.report)
    if stages.average is None:
        links = {"training": stages.model / PAGE, "evaluation": report}
        test = tests[stages.name]
        return [Model(stages.name, _report(stages.evaluate), test, _links(recipe, links))]
    links = {"weights": stages.model / RECORD, "evaluation": report}
    return [Model(stages.name, _report(stages.evaluate), None, _links(recipe, links)), *found]


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
        collected=read_json(Path(own) / MANIFEST),
        packed=read_json(Path(stages.pack.out) / MANIFEST),
        mixed=[by_folder[folder] for folder in mixed],
        trainings=dict(zip(names if stages.average else [stages.name], records, strict=True)),
        settings=_settings(stages),
        links=_links(recipe, pages),
    )


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
    path = config and Path(config.report)
    return read_json(path) if path and path.exists() else None


def _tested(found: dict[str, float]) -> dict[str, float]:
    return {name: found[name] for name in _TESTED if name in found}


def _links(recipe: Recipe, files: dict[str, Path | None]) -> dict[str, str]:
    """Say where files lie beside the page; those that are missing are left out."""
    there = {name: path for name, path in files.items() if path and path.exists()}
    return {
        name: Path(os.path.relpath(path, recipe.out)).as_posix() for name, path in there.items()
    }
