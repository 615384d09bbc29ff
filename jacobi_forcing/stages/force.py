"""force: collect, pack, train, evaluate, for one or more rounds, average: from one recipe file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from jacobi_forcing.config import (
    AverageConfig,
    CollectConfig,
    EvaluateConfig,
    ForceConfig,
    PackConfig,
    TrainConfig,
)
from jacobi_forcing.data.files import read_json, sha256
from jacobi_forcing.data.prompts import file_hashes
from jacobi_forcing.data.record import RECORD, refuse_change
from jacobi_forcing.data.trajectories import MANIFEST
from jacobi_forcing.drawing.rounds import table, write_rounds_page
from jacobi_forcing.evaluation import SUMMARY
from jacobi_forcing.stages import average, collect, dry_run, evaluate, pack, train
from jacobi_forcing.stages.comparison import compared
from jacobi_forcing.stages.recipe import Round, read_recipe

PAGE = "rounds.html"  # in the recipe's folder


def run(config: ForceConfig) -> Path:
    """Run every round of a recipe; return the folder of the last checkpoint.

    Stages that are done are not run again, so a run that was stopped continues where it was. After
    every round a page compares those that are done. With `dry_run`, look whether it would run, and
    how long; the folder is not made.

    Raises:
        JacobiForcingError: A bad recipe, or whatever a stage raises.
    """
    given = {"model": config.model, "out": config.out}
    recipe = read_recipe(Path(config.recipe), {key: v for key, v in given.items() if v})
    if config.dry_run:
        dry_run.show(dry_run.run(config, recipe), config)
        return recipe.rounds[-1].model
    console = Console(stderr=True)
    if recipe.start is not None:
        console.rule("start")
        _evaluate(recipe.start)
    for number, stages in enumerate(recipe.rounds, 1):
        console.rule(f"{stages.name} of {len(recipe.rounds)}")
        for train_config in stages.trains:
            _train(stages, train_config, console)
        if stages.average is not None:
            _average(stages.average)
        if stages.evaluate is not None:
            _evaluate(stages.evaluate)
        write_rounds_page(recipe.out / PAGE, compared(recipe, number))
    last = recipe.rounds[-1].model
    if recipe.average is not None:
        console.rule("average")
        last = _average(recipe.average)
        if recipe.evaluate is not None:
            _evaluate(recipe.evaluate)
    comparison = compared(recipe, len(recipe.rounds))
    write_rounds_page(recipe.out / PAGE, comparison)
    console.print(table(comparison))
    console.print(f"wrote {recipe.out / PAGE}", highlight=False)
    return last


def _train(stages: Round, config: TrainConfig, console: Console) -> None:
    """Train one member of a round, from what the round collects and packs once."""
    if _is_done(config, Path(config.out) / RECORD):
        console.print(f"{config.out} is trained already")
        return
    if not _is_collected(stages.collect):
        collect.run(stages.collect)
    if not _is_packed(stages.pack):
        pack.run(stages.pack)
    train.run(config)


def _average(config: AverageConfig) -> Path:
    out = Path(config.out)
    return out if _is_done(config, out / RECORD) else average.run(config)


def _evaluate(config: EvaluateConfig) -> None:
    if not _is_done(config, Path(config.out) / SUMMARY):
        evaluate.run(config)


def _is_collected(config: CollectConfig) -> bool:
    """Tell whether collecting is done; refuse to go on if the file of prompts has changed since."""
    manifest = Path(config.out) / MANIFEST
    if not _is_done(config, manifest, *collect.FREE):
        return False
    noted, found = read_json(manifest).get("inputs", {}), file_hashes(config.prompts)
    hashes = [
        {f"sha256 of {path}": h[path] for path in noted.keys() & found} for h in (found, noted)
    ]
    refuse_change(manifest, *hashes, free=())
    return True


def _is_packed(config: PackConfig) -> bool:
    """Tell whether packing is done, of the trajectories as they are."""
    manifest = Path(config.out) / MANIFEST
    if not _is_done(config, manifest):
        return False
    inputs = read_json(manifest)["inputs"]
    return all(Path(p).exists() and sha256(Path(p)) == digest for p, digest in inputs.items())


def _is_done(config: Any, record: Path, *free: str) -> bool:
    """Tell whether a stage has left its record; refuse to go on if it ran with other settings.

    `free` names settings that may have changed, beside those that say where the work is done.
    """
    if not record.exists():
        return False
    free = ("device", "threads", "workers", "keep_checkpoints", *free)
    refuse_change(record, asdict(config), read_json(record)["settings"], free=free)
    return True
