"""force: collect, pack, train, evaluate, for one or more rounds, average: from one recipe file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jacobi_forcing.config import (
    AverageConfig,
    CollectConfig,
    EvaluateConfig,
    ForceConfig,
    PackConfig,
    TrainConfig,
    check,
    from_mapping,
    refuse_unknown,
)
from jacobi_forcing.data.files import read_json
from jacobi_forcing.data.record import RECORD, refuse_change
from jacobi_forcing.data.trajectories import MANIFEST
from jacobi_forcing.errors import DataError
from jacobi_forcing.stages import average, collect, dry_run, evaluate, pack, train

_STAGES = {
    "collect": CollectConfig,
    "pack": PackConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
}


@dataclass(frozen=True)
class Round:
    """The settings of one round's stages."""

    collect: CollectConfig
    pack: PackConfig
    trains: list[TrainConfig]  # one per member, alike but for their seeds
    average: AverageConfig | None  # of the members, where there are several
    evaluate: EvaluateConfig | None  # None where the recipe has no [evaluate]

    @property
    def model(self) -> Path:
        """The round's checkpoint."""
        return Path((self.average or self.trains[0]).out)


@dataclass(frozen=True)
class Recipe:
    """Everything that a recipe asks for."""

    rounds: list[Round]
    average: AverageConfig | None  # of the start and every round's model
    evaluate: EvaluateConfig | None  # of that average


def run(config: ForceConfig) -> Path:
    """Run every round of a recipe; return the folder of the last checkpoint.

    With `dry_run`, look whether it would run, and how long; that folder is not made.

    Stages that are done are not run again, so a run that was stopped continues where it was.

    Raises:
        JacobiForcingError: A bad recipe, or whatever a stage raises.
    """
    given = {"model": config.model, "out": config.out}
    recipe = read_recipe(Path(config.recipe), {key: v for key, v in given.items() if v})
    if config.dry_run:
        dry_run.show(dry_run.run(config, recipe), config)
        return recipe.rounds[-1].model
    console = Console(stderr=True)
    reports = []
    for number, stages in enumerate(recipe.rounds, 1):
        console.rule(f"round {number} of {len(recipe.rounds)}")
        for train_config in stages.trains:
            _train(stages, train_config, console)
        if stages.average is not None:
            _averaged(stages.average)
        if stages.evaluate is not None:
            reports.append((f"round {number}", _evaluated(stages.evaluate)))
    last = recipe.rounds[-1].model
    if recipe.average is not None:
        console.rule("average")
        last = _averaged(recipe.average)
        if recipe.evaluate is not None:
            reports.append(("average", _evaluated(recipe.evaluate)))
    if reports:
        console.print(_table(reports))
    return last


def _train(stages: Round, config: TrainConfig, console: Console) -> None:
    """Train one member of a round, from what the round collects and packs once."""
    if _is_done(config, Path(config.out) / RECORD):
        console.print(f"{config.out} is trained already")
        return
    if not _is_done(stages.collect, Path(stages.collect.out) / MANIFEST, *collect.FREE):
        collect.run(stages.collect)
    if not _is_done(stages.pack, Path(stages.pack.out) / MANIFEST):
        pack.run(stages.pack)
    train.run(config)


def _averaged(config: AverageConfig) -> Path:
    out = Path(config.out)
    return out if _is_done(config, out / RECORD) else average.run(config)


def _evaluated(config: EvaluateConfig) -> dict:
    report = Path(config.report)
    return read_json(report) if _is_done(config, report) else evaluate.run(config)


def _is_done(config: Any, record: Path, *free: str) -> bool:
    """Tell whether a stage has left its record; refuse to go on if it ran with other settings.

    `free` names settings that may have changed, beside those that say where the work is done.
    """
    if not record.exists():
        return False
    free = ("device", "threads", "workers", *free)
    refuse_change(record, asdict(config), read_json(record)["settings"], free=free)
    return True


def read_recipe(path: Path, instead: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and resolve every stage's settings.

    A recipe names `model` and `out`, has a table per stage that holds for all rounds, and a list of
    `[[rounds]]` whose own stage tables go before those. Each round trains the model of the round
    before, and collects with it. With `members = n` it trains n times, with other seeds, and its
    model is their mean. `average = [a, b, c]` adds a last model, the mean of the start and each
    round's with these weights.

    Args:
        path: The recipe.
        instead: Goes before what the recipe itself says.

    Raises:
        ConfigError: An unknown setting (the nearest known one is suggested), or a bad value.
        DataError: The file cannot be read.
    """
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML: {error}.") from error
    recipe |= instead or {}
    named = ("model", "out", "seed", "threads", "rounds", "members", "average")
    refuse_unknown(recipe, (*named, *_STAGES), str(path))
    for name in ("model", "out"):
        check(isinstance(recipe.get(name), str), f'{path}: needs {name} = "...".')
    rounds = recipe.get("rounds", [{}])
    check(
        isinstance(rounds, list) and rounds and all(isinstance(r, dict) for r in rounds),
        f"{path}: rounds must be tables, each written under [[rounds]].",
    )
    resolved: list[Round] = []
    for number, overrides in enumerate(rounds, 1):
        model = str(resolved[-1].model) if resolved else recipe["model"]
        folder = Path(recipe["out"]) / f"round-{number}"
        resolved.append(_resolve_round(recipe, overrides, model, folder, f"{path}: round {number}"))
    return Recipe(resolved, *_resolve_average(recipe, resolved, str(path)))


def _resolve_round(
    recipe: Mapping, overrides: Mapping, model: str, folder: Path, where: str
) -> Round:
    refuse_unknown(overrides, ("members", *_STAGES), where)
    packed, trained = str(folder / "packed"), str(folder / "model")
    wires = {
        "collect": {"model": model, "out": str(folder / "trajectories")},
        "pack": {"trajectories": str(folder / "trajectories"), "out": packed},
        "train": {"model": model, "packed": packed, "out": trained},
        "evaluate": {"model": trained, "report": str(folder / "report.json")},
    }
    stages = {
        stage: _resolve(stage, recipe, overrides, wires[stage], f"{where}: [{stage}]")
        for stage in _STAGES
    }
    if "evaluate" not in recipe and "evaluate" not in overrides:
        stages["evaluate"] = None
    members = overrides.get("members", recipe.get("members", 1))
    check(
        type(members) is int and members >= 1,
        f"{where}: members is {members!r}, must be a number of trainings, at least 1.",
    )
    first = stages.pop("train")
    if "frozen" in (first.teacher, first.ar_teacher) and model != recipe["model"]:
        # What the rounds lose adds up, unless all of them learn from the same original.
        first = replace(first, frozen_model=first.frozen_model or recipe["model"])
    if members == 1:
        return Round(**stages, trains=[first], average=None)
    trains = [
        replace(first, out=str(folder / f"member-{i + 1}"), seed=first.seed + i)
        for i in range(members)
    ]
    mean = AverageConfig(
        models=",".join(config.out for config in trains),
        weights=",".join([repr(1 / members)] * members),
        out=trained,
    )
    return Round(**stages, trains=trains, average=mean)


def _resolve_average(
    recipe: Mapping, rounds: Sequence[Round], where: str
) -> tuple[AverageConfig | None, EvaluateConfig | None]:
    weights = recipe.get("average")
    if weights is None:
        return None, None
    num = len(rounds) + 1
    check(
        isinstance(weights, list) and all(type(w) in (int, float) for w in weights),
        f"{where}: average is {weights!r}, must be a list of {num} numbers, the weights of the "
        "start and of each round's model.",
    )
    out = Path(recipe["out"]) / "average"
    wires = {
        "models": ",".join([recipe["model"], *(str(stages.model) for stages in rounds)]),
        "weights": ",".join(map(str, weights)),
        "out": str(out),
    }
    config = from_mapping(AverageConfig, wires, f"{where}: average")
    if "evaluate" not in recipe:
        return config, None
    wires = {"model": str(out), "report": str(out / "report.json")}
    return config, _resolve("evaluate", recipe, {}, wires, f"{where}: [evaluate]")


def _resolve(
    stage: str, recipe: Mapping, overrides: Mapping, wires: Mapping[str, str], where: str
) -> Any:
    """Make one stage's config; `wires` are what one stage hands to the next."""
    config_type = _STAGES[stage]
    names = {f.name for f in fields(config_type)}
    given = {n: recipe[n] for n in ("seed", "threads") if n in recipe and n in names}
    for table in (recipe.get(stage, {}), overrides.get(stage, {})):
        check(isinstance(table, dict), f"{where} is {table!r}, must be a table of settings.")
        for name in wires:
            check(name not in table, f"{where}: {name} is set by the recipe itself.")
        given |= table
    return from_mapping(config_type, given | wires, where)


def _table(reports: Sequence[tuple[str, dict]]) -> Table:
    table = Table("model", "accuracy", "tokens per forward", "speed-up over AR", "mismatches")
    for name, report in reports:
        table.add_row(
            name,
            f"{report['accuracy']:.1%}",
            f"{report['tokens_per_forward']:.2f}",
            f"{report['speedup']:.2f}x",
            str(report["num_mismatches"]),
        )
    return table
