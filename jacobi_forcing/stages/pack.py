"""pack: pick each block's noisy state by the schedule, lay it beside the clean one, fill sequences.

Also looks through what was packed (`--check`) and draws a sequence of it (`--html`).
"""

import logging
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from jacobi_forcing.config import PackConfig, TrainConfig, check
from jacobi_forcing.data.columns import read_batches
from jacobi_forcing.data.files import (
    alone_in,
    refuse_file,
    refuse_folder,
    sha256,
    shard_path,
    shard_paths,
    write_json,
)
from jacobi_forcing.data.packed import (
    FORMAT,
    Counts,
    add_counts,
    is_packed_shard,
    read_packed_manifest,
    stream_packed,
)
from jacobi_forcing.data.packed_check import check_packed
from jacobi_forcing.data.record import run_record
from jacobi_forcing.data.trajectories import (
    MANIFEST,
    SCHEMA,
    read_manifest,
    refuse_foreign,
    tokenizer_fingerprint,
)
from jacobi_forcing.drawing.sequence import write_sequence_page
from jacobi_forcing.errors import DataError
from jacobi_forcing.models.loading import load_tokenizer
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.training.batch import Collator, layout_of
from jacobi_forcing.training.layout import IGNORED, Layout
from jacobi_forcing.training.mask import dense_mask
from jacobi_forcing.training.packing import end_with_parent, pack_shard

logger = logging.getLogger(__name__)

_LOCK = "pack.lock"  # in the folder that is packed into, held by the process that does it
_MOST_DRAWN = 2048  # tokens of a mask that is drawn, as wide as a screen


def run(config: PackConfig) -> Path:
    """Pack trajectories into `config.out`, or look through `config.check`; return that folder.

    The bytes do not depend on the number of workers, nor on which of them ends first: packed shard
    k is a function of trajectory shard k, the settings and the seed alone. No sequence crosses a
    shard, and what is random in a prompt's document is drawn from the seed and the prompt's index,
    whatever shard it lies in and whatever lies beside it. (How trajectories are dealt to shards
    does decide who shares a sequence with whom.)

    What an earlier run left in `config.out` is replaced: its shards would be read as ours. What
    another stage left there is not.

    Raises:
        ConfigError: `config.out` is a folder of trajectories, or of another stage, or another
            process packs into it.
        DataError: The trajectories are not finished, broken, or do not go together; a prompt occurs
            twice; nothing is left of them. With `config.check`: the first thing that is wrong.
    """
    refuse_folder(config.html, "--html")
    refuse_file(config.out, "--out")
    folder = Path(config.check or config.out)
    manifest = _check(config, folder) if config.check else _pack(config, folder)
    if config.html:
        _draw(config, folder, manifest)
    return folder


def _pack(config: PackConfig, out: Path) -> dict:
    """Pack; return the manifest."""
    manifests = {folder: read_manifest(folder, "collect") for folder in config.folders}
    for folder in config.folders:
        check(
            out.resolve() != Path(folder).resolve(),
            f"--out is {config.out}, where the trajectories are; needed is a folder of its own.",
        )
    refuse_foreign(out, "pack", _foreign_parts(out))
    _refuse_mixed(manifests, allowed=("weights",) if config.mix else ())
    first = manifests[config.folders[0]]
    _tokenizer(config, first)  # to refuse a wrong one before the work, not after
    shards = [shard_paths(Path(folder)) for folder in config.folders]
    sources = [shard for folder in shards for shard in folder]
    for together in shards if config.mix else [sources]:
        _refuse_duplicates(together)
    with alone_in(out, _LOCK):
        for old in (out / MANIFEST, *out.glob("part-*.parquet")):
            old.unlink(missing_ok=True)
        return _write(config, out, manifests, sources)


def _write(config: PackConfig, out: Path, manifests: dict[str, dict], sources: list[Path]) -> dict:
    """Pack the files `sources` of the folders in `manifests`; return the manifest."""
    first = manifests[config.folders[0]]
    targets = [shard_path(out, number) for number in range(len(sources))]
    found = Counts(0, 0, 0)
    with progress_bar("pack", len(sources), unit="files") as bar:
        work = partial(pack_shard, config, first["block_size"])
        for counts in _map(work, config.workers, sources, targets):
            found = add_counts(found, counts)
            bar.advance()
    totals = [sum(m[f"num_{what}"] for m in manifests.values()) for what in _TOTALS]
    if not found.num_sequences:
        raise DataError(
            f"{config.trajectories}: no trajectory is left to pack: {totals[0]} collected, "
            f"{totals[1]} ended with EOS, {totals[2]} solved their problem. A prompt with the "
            "first block of its answer, noisy and clean, has to fit into --max-length "
            f"{config.max_length}."
        )
    inputs = {f"{folder}/{MANIFEST}": sha256(Path(folder) / MANIFEST) for folder in manifests}
    manifest = run_record(config, inputs=inputs) | {
        "format": FORMAT,
        "block_size": first["block_size"],
        "record": first.get("record", "states"),  # older folders hold states
        "window": config.window,
        **found._asdict(),
        "num_prompts": totals[0],
        "tokenizer": first["tokenizer"],
        "shards": {shard.name: sha256(shard) for shard in targets},
    }
    write_json(out / MANIFEST, manifest)
    logger.info(
        "wrote %s: %d documents of %d trajectories in %d sequences, %d tokens, %.0f %% of the "
        "longest allowed.",
        out,
        found.num_documents,
        totals[0],
        found.num_sequences,
        found.num_tokens,
        100 * found.num_tokens / (found.num_sequences * config.max_length),
    )
    return manifest


def _check(config: PackConfig, folder: Path) -> dict:
    """Look through a packed folder; return its manifest."""
    manifest = read_packed_manifest(folder)
    tokenizer = _tokenizer(config, manifest)
    found = check_packed(folder, manifest, None if tokenizer is None else len(tokenizer))
    logger.info(
        "%s: manifest and files agree, and every document is whole: %d in %d sequences, %d tokens.",
        folder,
        found.num_documents,
        found.num_sequences,
        found.num_tokens,
    )
    return manifest


def _tokenizer(config: PackConfig, manifest: dict) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of `config.model`, where it is named; it must be the data's own."""
    if not config.model:
        return None
    tokenizer = load_tokenizer(config.model)
    check(
        tokenizer_fingerprint(tokenizer) == manifest["tokenizer"],
        f"--model {config.model} has another tokenizer than the model that these ids are from. "
        "Name the one that collected them.",
    )
    return tokenizer


def _draw(config: PackConfig, folder: Path, manifest: dict) -> None:
    """Draw the first sequence as training with its default settings sees it."""
    settings, block_size = manifest["settings"], manifest["block_size"]
    sequence = next(stream_packed(folder, block_size))
    collate = Collator(
        block_size,
        pad_id=0,
        ar_on_prompt=TrainConfig.ar_on_prompt,
        consistency_from=TrainConfig.consistency_from,
        consistency_reach=TrainConfig.consistency_reach,
    )
    batch = collate([sequence])
    # Answers without states are for online drafts, which have a mask of their own.
    mask = TrainConfig.mask if manifest["record"] == "states" else "clean-context"
    layout = Layout(*(field[:, :_MOST_DRAWN] for field in layout_of(batch)))
    write_sequence_page(
        config.html,
        _tokenizer(config, manifest),
        sequence,
        block_size=block_size,
        seen=dense_mask(layout, mask, manifest["window"])[0].numpy(),
        learns_ar=(batch["ar_targets"][0] != IGNORED).numpy(),
        learns_consistency=(batch["teacher_index"][0] >= 0).numpy(),
        facts={
            "name": str(folder),
            "schedule": settings["schedule"],
            "window": settings["window"],
            "maxLength": settings["max_length"],
            "record": manifest["record"],
            "mask": mask,
        },
    )


def _foreign_parts(out: Path) -> list[Path]:
    """Give what a folder holds that `pack` did not write; one killed leaves parts, no manifest."""
    foreign = list(out.glob("shard-*-of-*"))
    if not (out / MANIFEST).exists():
        foreign += [*out.glob("settings.json"), *out.glob("*.journal")]
        foreign += [p for p in out.glob("part-*.parquet") if not is_packed_shard(p)]
    return foreign


_TOTALS = ("prompts", "finished", "solved")


def _refuse_mixed(manifests: dict[str, dict], allowed: Collection[str]) -> None:
    """Raise DataError where folders were not collected alike: what is packed must be of one model.

    A single folder cannot be mixed: its manifest lists its files. `allowed` names what may differ.
    """
    if len(manifests) == 1:
        return
    facts = {folder: _identity(manifest) for folder, manifest in manifests.items()}
    first, *others = facts
    for folder in others:
        for name, ours in facts[folder].items():
            if name not in allowed and ours != facts[first][name]:
                hint = " or, where they are rounds of one model, with --mix"
                raise DataError(
                    f"{folder}: was collected with {name} {ours!r}, {first} with "
                    f"{facts[first][name]!r}. Pack them apart{hint if name == 'weights' else ''}."
                )


def _identity(manifest: dict) -> dict:
    return {
        "block_size": manifest["block_size"],
        "tokenizer": manifest["tokenizer"],
        "record": manifest.get("record", "states"),
        "weights": manifest.get("origin", {}).get("weights"),
    }


def _refuse_duplicates(shards: list[Path]) -> None:
    """Raise DataError where two rows are of the same prompt: it would be learned twice.

    This holds eight bytes per prompt; nothing else in packing grows with the number of prompts.
    """
    indexes = [_prompt_indexes(shard) for shard in shards]
    whole = np.concatenate([np.empty(0, np.int64), *indexes])  # a part may have no shard
    order = np.argsort(whole, kind="stable")
    again = np.flatnonzero(np.diff(whole[order]) == 0)
    if len(again):
        ends = np.cumsum([len(found) for found in indexes])
        first, second = np.searchsorted(ends, order[again[0] : again[0] + 2], side="right")
        raise DataError(
            f"{shards[second]}: prompt {whole[order[again[0]]]} occurs again, after "
            f"{shards[first]}. Every prompt is packed once (more often with --copies, once from "
            "each folder with --mix): leave one of the folders out, or collect again."
        )


def _prompt_indexes(shard: Path) -> np.ndarray:
    column = pa.schema([SCHEMA.field("prompt_index")])
    batches = [batch["prompt_index"].to_numpy() for batch in read_batches(shard, column, 65536)]
    return np.concatenate([np.empty(0, np.int64), *batches])


def _map(function: Callable[..., Counts], workers: int, *items: list[Path]) -> Iterator[Counts]:
    if workers == 1:
        yield from map(function, *items)
        return
    # Spawned, not forked: the parent may hold PyTorch's threads.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        yield from pool.map(function, *items)
