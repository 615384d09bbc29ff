"""What a collection holds, in figures: counted shard by shard, added up, and made a report of."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jacobi_forcing.data.trajectories import Dropped, Trajectory

_NUMBERS = ("num_prompts", "num_dropped", "num_prompt_tokens", "num_tokens", "num_forwards")
_NUMBERS += ("num_finished", "num_solved", "num_blocks", "num_states")
_TABLES = ("dropped", "states_per_block", "tokens_per_forward")


def count(kept: Sequence[Trajectory], dropped: Sequence[Dropped]) -> Counter[str]:
    """Count what a report needs.

    `NAME:KEY` is an entry of a table: `dropped` has prompts by reason, `states_per_block` blocks
    by their number of states, `tokens_per_forward` answers by that ratio, rounded down to quarters.
    All but `dropped` and `num_dropped` count what is kept.
    """
    counts = Counter(dict.fromkeys(_NUMBERS, 0))
    counts["num_prompts"], counts["num_dropped"] = len(kept), len(dropped)
    for one in kept:
        num_tokens = len(one.answer_ids)
        counts["num_prompt_tokens"] += len(one.prompt_ids)
        counts["num_tokens"] += num_tokens
        counts["num_forwards"] += one.num_forwards
        counts["num_finished"] += one.finish_reason == "eos"
        counts["num_solved"] += one.solved is True
        counts["num_blocks"] += len(one.states)
        counts["num_states"] += sum(map(len, one.states))
        counts[f"tokens_per_forward:{num_tokens * 4 // one.num_forwards / 4:.2f}"] += 1
        counts.update(f"states_per_block:{len(states)}" for states in one.states)
    counts.update(f"dropped:{one.reason}" for one in dropped)
    return counts


def totals(counts: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """Add counts up: numbers by name, and the tables with their keys in order."""
    # Without any counts the numbers are there too; in the order that shards' notes have.
    summed: Counter[str] = Counter(dict.fromkeys(sorted(_NUMBERS), 0))
    for one in counts:
        summed.update(one)
    found: dict[str, Any] = {k: n for k, n in summed.items() if ":" not in k}
    for name in _TABLES:
        entries = ((k.partition(":")[2], n) for k, n in summed.items() if k.startswith(f"{name}:"))
        by = str if name == "dropped" else float
        found[name] = dict(sorted(entries, key=lambda entry, by=by: by(entry[0])))
    return found
