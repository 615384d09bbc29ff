"""force: collect, pack, train and evaluate, for one or more rounds, from one recipe file."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jacobi_forcing.config import (
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
from jacobi_forcing.data.record import refuse_change
from jacobi_forcing.data.trajectories import MANIFEST
from jacobi_forcing.errors import DataError
from jacobi_forcing.stages import collect, evaluate, pack, train

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
    train: TrainConfig
    evaluate: EvaluateConfig | None  # None where the recipe has no [evaluate]


def run(config: ForceConfig) -> Path:
    """Run every round of a recipe; return the last round's checkpoint folder.

    Stages that are done are not run again, so a run that was stopped continues where it was.

    Raises:
        JacobiForcingError: A bad recipe, or whatever a stage raises.
    """
    rounds = read_recipe(Path(config.recipe))
    console = Console(stderr=True)
    reports = []
    for number, stages in enumerate(rounds, 1):
        console.rule(f"round {number} of {len(rounds)}")
        checkpoint = Path(stages.train.out)
        if _is_done(stages.train, checkpoint / "run.json"):
            console.print(f"{checkpoint} is trained already")
        else:
            collect.run(stages.collect)
            if not _is_done(stages.pack, Path(stages.pack.out) / MANIFEST):
                pack.run(stages.pack)
            train.run(stages.train)
        if stages.evaluate is not None:
            report = Path(stages.evaluate.report)
            is_done = _is_done(stages.evaluate, report)
            reports.append(read_json(report) if is_done else evaluate.run(stages.evaluate))
    if reports:
        console.print(_table(reports))
    return Path(rounds[-1].train.out)


def _is_done(config: Any, record: Path) -> bool:
    """Tell whether a stage has left its record; refuse to go on if it ran with other settings."""
    if not record.exists():
        return False
    free = ("device", "threads", "workers")
    refuse_change(record, asdict(config), read_json(record)["settings"], free=free)
    return True


def read_recipe(path: Path) -> list[Round]:
    """Read a recipe and resolve every stage's settings.

    A recipe names `model` and `out`, has a table per stage that holds for all rounds, and a list of
    `[[rounds]]` whose own stage tables go before those. Each round trains the model of the round
    before, and collects with it.

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
    refuse_unknown(recipe, ("model", "out", "seed", "threads", "rounds", *_STAGES), str(path))
    for name in ("model", "out"):
        check(isinstance(recipe.get(name), str), f'{path}: needs {name} = "...".')
    rounds = recipe.get("rounds", [{}])
    check(
        isinstance(rounds, list) and rounds and all(isinstance(r, dict) for r in rounds),
        f"{path}: rounds must be tables, each written under [[rounds]].",
    )
    resolved = []
    model = recipe["model"]
    for number, overrides in enumerate(rounds, 1):
        where = f"{path}: round {number}"
        refuse_unknown(overrides, _STAGES, where)
        folder = Path(recipe["out"]) / f"round-{number}"
        wires = {
            "collect": {"model": model, "out": str(folder / "trajectories")},
            "pack": {"trajectories": str(folder / "trajectories"), "out": str(folder / "packed")},
            "train": {
                "model": model,
                "packed": str(folder / "packed"),
                "out": str(folder / "model"),
            },
            "evaluate": {"model": str(folder / "model"), "report": str(folder / "report.json")},
        }
        stages = {
            stage: _resolve(stage, recipe, overrides, wires[stage], f"{where}: [{stage}]")
            for stage in _STAGES
        }
        if "evaluate" not in recipe and "evaluate" not in overrides:
            stages["evaluate"] = None
        resolved.append(Round(**stages))
        model = str(folder / "model")
    return resolved


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


def _table(reports: list[dict]) -> Table:
    table = Table("round", "accuracy", "tokens per forward", "speed-up over AR", "mismatches")
    for number, report in enumerate(reports, 1):
        table.add_row(
            str(number),
            f"{report['accuracy']:.1%}",
            f"{report['tokens_per_forward']:.2f}",
            f"{report['speedup']:.2f}x",
            str(report["num_mismatches"]),
        )
    return table
