"""What a recipe asks for: every stage's settings in every round, resolved and checked together."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jacobi_forcing.config import (
    AverageConfig,
    CollectConfig,
    EvaluateConfig,
    PackConfig,
    TrainConfig,
    check,
    from_mapping,
    refuse_unknown,
)
from jacobi_forcing.errors import DataError

_STAGES = {
    "collect": CollectConfig,
    "pack": PackConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
}


@dataclass(frozen=True)
class Round:
    """The settings of one round's stages."""

    name: str  # "round 1", and so on
    collect: CollectConfig
    pack: PackConfig  # of this round's trajectories, and of earlier ones that are mixed in
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

    model: str  # what round 1 starts from
    out: Path
    start: EvaluateConfig | None  # of that model
    rounds: list[Round]
    average: AverageConfig | None  # of the start and every round's model
    evaluate: EvaluateConfig | None  # of that average


def read_recipe(path: Path, instead: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and resolve every stage's settings.

    A recipe names `model` and `out`, has a table per stage that holds for all rounds, and a list of
    `[[rounds]]` whose own stage tables go before those. Each round trains the model of the round
    before, and collects with it. With `members = n` it trains n times, with other seeds, and its
    model is their mean. With `mix_earlier = n` the trajectories of up to n rounds before it are
    packed with its own. `average = [a, b, c]` adds a last model, the mean of the start and each
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
    named = ("model", "out", "seed", "threads", "rounds", "members", "mix_earlier", "average")
    refuse_unknown(recipe, (*named, *_STAGES), str(path))
    for name in ("model", "out"):
        check(isinstance(recipe.get(name), str), f'{path}: needs {name} = "...".')
    rounds = recipe.get("rounds", [{}])
    check(
        isinstance(rounds, list) and rounds and all(isinstance(r, dict) for r in rounds),
        f"{path}: rounds must be tables, each written under [[rounds]].",
    )
    resolved: list[Round] = []
    for overrides in rounds:
        resolved.append(_resolve_round(recipe, overrides, resolved, str(path)))
    start, average, of_average = _resolve_ends(recipe, resolved, str(path))
    return Recipe(recipe["model"], Path(recipe["out"]), start, resolved, average, of_average)


def _resolve_round(
    recipe: Mapping, overrides: Mapping, earlier: Sequence[Round], where: str
) -> Round:
    name = f"round {len(earlier) + 1}"
    where = f"{where}: {name}"
    refuse_unknown(overrides, ("members", "mix_earlier", *_STAGES), where)
    model = str(earlier[-1].model) if earlier else recipe["model"]
    folder = Path(recipe["out"]) / name.replace(" ", "-")
    own, packed, trained = (str(folder / n) for n in ("trajectories", "packed", "model"))
    mixed = _mixed(recipe, overrides, earlier, where)
    trajectories = ",".join([own, *(stages.collect.out for stages in mixed)])
    wires = {
        "collect": {"model": model, "out": own},
        "pack": {"trajectories": trajectories, "mix": bool(mixed), "out": packed},
        "train": {"model": model, "packed": packed, "out": trained},
        "evaluate": {"model": trained, "out": str(folder / "evaluation")},
    }
    stages = {
        stage: _resolve(stage, recipe, overrides, wires[stage], f"{where}: [{stage}]")
        for stage in _STAGES
    }
    if "evaluate" not in recipe and "evaluate" not in overrides:
        stages["evaluate"] = None
    for before in mixed:
        _refuse_unlike(stages["collect"], before, where)
    first = stages.pop("train")
    if "frozen" in (first.teacher, first.ar_teacher) and model != recipe["model"]:
        # What the rounds lose adds up, unless all of them learn from the same original.
        first = first.changed(frozen_model=first.frozen_model or recipe["model"])
    members = _count("members", 1, recipe, overrides, where)
    if members == 1:
        return Round(name, **stages, trains=[first], average=None)
    trains = [
        first.changed(out=str(folder / f"member-{i + 1}"), seed=first.seed + i)
        for i in range(members)
    ]
    mean = AverageConfig(
        models=",".join(config.out for config in trains),
        weights=",".join([repr(1 / members)] * members),
        out=trained,
    )
    return Round(name, **stages, trains=trains, average=mean)


def _mixed(
    recipe: Mapping, overrides: Mapping, earlier: Sequence[Round], where: str
) -> Sequence[Round]:
    """Choose the rounds whose trajectories are packed with a round's own, the latest last."""
    num = _count("mix_earlier", 0, recipe, overrides, where)
    return earlier[max(0, len(earlier) - num) :]


def _refuse_unlike(collect: CollectConfig, before: Round, where: str) -> None:
    """Raise ConfigError where two rounds' trajectories cannot lie in one packed folder."""
    for name in ("block_size", "record"):
        ours, theirs = getattr(collect, name), getattr(before.collect, name)
        check(
            ours == theirs,
            f"{where}: mix_earlier packs the trajectories of {before.name} too, but their "
            f"collect.{name} is {theirs!r}, and here it is {ours!r}. Let them be the same, or set "
            "mix_earlier = 0 in this round.",
        )


def _count(name: str, least: int, recipe: Mapping, overrides: Mapping, where: str) -> int:
    """Look up a whole number that a round or else the recipe sets; `least` is its default too."""
    found = overrides.get(name, recipe.get(name, least))
    check(
        type(found) is int and found >= least,
        f"{where}: {name} is {found!r}, must be a whole number, at least {least}.",
    )
    return found


def _resolve_ends(
    recipe: Mapping, rounds: Sequence[Round], where: str
) -> tuple[EvaluateConfig | None, AverageConfig | None, EvaluateConfig | None]:
    """Give what is to be done beside the rounds.

    Returns:
        How the start is evaluated, how it and the rounds are averaged, and how that is evaluated.
    """

    def evaluation(model: str, folder: str) -> EvaluateConfig | None:
        if "evaluate" not in recipe:
            return None
        wires = {"model": model, "out": str(Path(recipe["out"]) / folder / "evaluation")}
        return _resolve("evaluate", recipe, {}, wires, f"{where}: [evaluate]")

    start = evaluation(recipe["model"], "start")
    weights = recipe.get("average")
    if weights is None:
        return start, None, None
    num = len(rounds) + 1
    check(
        isinstance(weights, list) and all(type(w) in (int, float) for w in weights),
        f"{where}: average is {weights!r}, must be a list of {num} numbers, the weights of the "
        "start and of each round's model.",
    )
    out = str(Path(recipe["out"]) / "average")
    wires = {
        "models": ",".join([recipe["model"], *(str(stages.model) for stages in rounds)]),
        "weights": ",".join(map(str, weights)),
        "out": out,
    }
    average = from_mapping(AverageConfig, wires, f"{where}: average")
    return start, average, evaluation(out, "average")


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
    config = from_mapping(config_type, given | wires, where)
    if stage == "evaluate" and config.num_texts:
        config = config.changed(original=config.original or recipe["model"])
    return config
