"""force: collect, pack, train and evaluate, for one or more rounds, from one recipe file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
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
    from_mapping,
)
from jacobi_forcing.data.files import read_json
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages import collect, evaluate, pack, train

_STAGES = {
    "collect": CollectConfig,
    "pack": PackConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
}
# What one stage hands to the next is filled in here, so a recipe may not set it.
_WIRED = {
    "collect": {"model", "out"},
    "pack": {"trajectories", "out"},
    "train": {"model", "packed", "out"},
    "evaluate": {"model", "report"},
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
        if (checkpoint / "run.json").exists():
            console.print(f"{checkpoint} is trained already")
        else:
            collect.run(stages.collect)
            if not (Path(stages.pack.out) / "manifest.json").exists():
                pack.run(stages.pack)
            train.run(stages.train)
        if stages.evaluate is not None:
            path = Path(stages.evaluate.report)
            reports.append(read_json(path) if path.exists() else evaluate.run(stages.evaluate))
    if reports:
        console.print(_table(reports))
    return Path(rounds[-1].train.out)


def read_recipe(path: Path) -> list[Round]:
    """Read a recipe and resolve every stage's settings.

    A recipe names `model` and `out`, has a table per stage that holds for all rounds, and a list of
    `[[rounds]]` whose own stage tables go before those. Each round trains the model of the round
    before, and collects with it.

    Raises:
        ConfigError: An unknown setting (the nearest known one is suggested) or a value out of range.
        DataError: The file cannot be read.
    """
    try:
        recipe = tomllib.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML: {error}.") from error
    known = {"model", "out", "seed", "threads", "rounds", *_STAGES}
    _refuse_unknown(recipe, known, str(path))
    for name in ("model", "out"):
        if not isinstance(recipe.get(name), str):
            raise ConfigError(f'{path}: needs {name} = "...".')
    rounds = recipe.get("rounds") or [{}]
    resolved = []
    model = recipe["model"]
    for number, overrides in enumerate(rounds, 1):
        where = f"{path}: round {number}"
        _refuse_unknown(overrides, set(_STAGES), where)
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
            stage: _resolve(stage, recipe, overrides, wires[stage], where) for stage in _STAGES
        }
        if "evaluate" not in recipe and "evaluate" not in overrides:
            stages["evaluate"] = None
        resolved.append(Round(**stages))
        model = str(folder / "model")
    return resolved


def _refuse_unknown(table: Mapping[str, Any], known: set[str], where: str) -> None:
    import difflib

    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where}: unknown setting {name!r}.{hint}")


def _resolve(
    stage: str, recipe: Mapping, overrides: Mapping, wires: Mapping[str, str], where: str
) -> Any:
    config_type = _STAGES[stage]
    names = {f.name for f in fields(config_type)}
    shared = {n: recipe[n] for n in ("seed", "threads") if n in recipe and n in names}
    given = recipe.get(stage, {}) | overrides.get(stage, {})
    wired = _WIRED[stage] & given.keys()
    if wired:
        raise ConfigError(f"{where}: [{stage}] {sorted(wired)[0]} is set by the recipe itself.")
    return from_mapping(config_type, shared | given | wires, f"{where}: [{stage}]")


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
