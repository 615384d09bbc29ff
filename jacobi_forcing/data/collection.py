"""The folder of a collection: whose part of the work it is, and what makes it whole.

Work is divided by shards: of N machines the i-th collects shards i - 1, i - 1 + N, ... into a
folder of its own, `shard-i-of-N`, whose shards keep the numbers and bytes that one machine would
give them. So nobody has to wait for anybody; whoever finds all N folders finished writes the
manifest above them, and the folder above is then read like any other.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jacobi_forcing.config import CollectConfig, check
from jacobi_forcing.data.counts import totals
from jacobi_forcing.data.files import read_json, sha256, shard_path, shard_paths, write_json
from jacobi_forcing.data.trajectories import (
    MANIFEST,
    check_origin,
    dropped_path,
    read_counts,
    refuse_foreign,
)

_ORIGIN = ("weights", "prompts", "block_size", "record", "settings")


def own_folder(config: CollectConfig) -> Path:
    """Give the folder that a run writes to, which is not `config.out` for a part of the work.

    Raises:
        ConfigError: `config.out` is another stage's, or was begun in another number of parts.
    """
    out = Path(config.out)
    refuse_foreign(out, "collect")
    number, num_parts = config.part
    begun = {int(p.name.rpartition("-")[2]) for p in out.glob("shard-*-of-*")}
    if (out / "settings.json").exists():
        begun.add(1)
    check(
        begun <= {num_parts},
        f"{out}: was begun in {max(begun, default=1)} parts, now it is {num_parts}. Use the same "
        "--shard i/N to continue, or another output folder.",
    )
    return out if num_parts == 1 else _part_folder(out, number, num_parts)


def _part_folder(out: Path, number: int, num_parts: int) -> Path:
    return out / f"shard-{number}-of-{num_parts}"


def members(config: CollectConfig, num_prompts: int) -> dict[int, range]:
    """Give the shards of a run's part of the work, by number, each with its prompts' indices."""
    number, num_parts = config.part
    firsts = list(enumerate(range(0, num_prompts, config.shard_prompts)))
    return {
        shard: range(first, min(first + config.shard_prompts, num_prompts))
        for shard, first in firsts[number - 1 :: num_parts]
    }


def origin(facts: Mapping[str, Any], free: Collection[str]) -> dict[str, Any]:
    """Say in a few values where shards are from; those of another origin are refused.

    Args:
        facts: All settings and fingerprints of inputs.
        free: Settings that change nothing in the shards. Nor does the name of the model, whose
            weights have a fingerprint.
    """
    decisive = {name: value for name, value in facts.items() if name not in (*free, "model")}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    known = decisive | {"settings": digest}
    return {name: known[name] for name in _ORIGIN}


def check_folder(out: Path, wanted: Mapping[int, Sequence[int]], origin: dict[str, Any]) -> None:
    """See that the shards of a folder to be continued are its own.

    Raises:
        DataError: One cannot be read, or is from elsewhere.
        ConfigError: One is another part's, or beyond the last.
    """
    found = shard_paths(out)
    check_origin(found, origin)
    names = {shard_path(out, number).name for number in wanted}
    for shard in found:
        check(shard.name in names, f"{shard}: is no shard of this run. Remove it to continue.")


def write_report(out: Path) -> dict[str, Any]:
    """Write `report.json` of all shards in a folder, those of its parts included; return it."""
    report = totals(map(read_counts, shard_paths(out)))
    write_json(out / "report.json", report)
    return report


def write_manifest(
    out: Path, record: dict[str, Any], origin: dict[str, Any], report: dict[str, Any]
) -> None:
    """Write the manifest, the last file of a folder: it marks it as finished.

    Args:
        out: The folder.
        record: The run record.
        origin: Of its shards.
        report: What they hold.
    """
    shards = shard_paths(out)
    dropped = [path for path in map(dropped_path, shards) if path.exists()]
    numbers = {name: number for name, number in report.items() if name.startswith("num_")}
    write_json(
        out / MANIFEST,
        {
            **record,
            "origin": origin,
            "block_size": origin["block_size"],
            "record": origin["record"],
            **numbers,
            "dropped": report["dropped"],
            "shards": {path.name: sha256(path) for path in shards},
            "dropped_shards": {path.name: sha256(path) for path in dropped},
        },
    )


def joined(config: CollectConfig) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Give the run record and origin of the folder above all parts, once they are finished.

    They are the first part's, whoever asks, so machines that finish together do no harm.

    Raises:
        DataError: The parts are not of one model, set of prompts and settings.
    """
    out, (_, num_parts) = Path(config.out), config.part
    parts = [_part_folder(out, number, num_parts) / MANIFEST for number in range(1, num_parts + 1)]
    if not all(part.exists() for part in parts):
        return None
    first = read_json(parts[0])
    check_origin(shard_paths(out), first["origin"])
    named = ("stage", "settings", "command", "versions", "commit", "hardware", "tokenizer")
    named += ("inputs",) if "inputs" in first else ()  # older folders have none
    return {name: first[name] for name in named}, first["origin"]
