"""Write the tables of the README and the docs from `results/*.json`.

    python benchmarks/tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a function below.
"""

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import paper

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("experiments", "architectures", "serving", "evaluation", "miniature")
    ),
)


def read(name: str) -> dict:
    """Read one result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def source(result: dict, name: str) -> str:
    """Say where the figures come from."""
    machine = result["hardware"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['torch_threads']} threads"
    return (
        f"`benchmarks/results/{name}.json`, {result['date']}, commit {result['commit']}, {where}, "
        f"torch {result['versions']['torch']}, transformers {result['versions']['transformers']}."
    )


_LADDER_FIRST = ["ladder_first", "ladder_first_recycling"]


def ladder() -> str:
    """Models x decoders on the held-out problems: the base, the first pair in short, the pair."""
    first, recycling = read("ladder_first")["rows"], read("ladder_first_recycling")["rows"]
    base = [row for row in first if row["model"] == "tiny-base"]
    mean = [row | {"model": "two rounds and their mean"} for row in recycling]
    return _ladder([*base, *mean, *read("ladder")["rows"]], ["ladder", *_LADDER_FIRST])


def ladder_first() -> str:
    """The first pair, and what it was made from."""
    recycling = read("ladder_first_recycling")["rows"]
    recycling = [row for row in recycling if row["strategy"] != "autoregressive"]
    return _ladder([*read("ladder_first")["rows"], *recycling], _LADDER_FIRST)


def _ladder(found: Sequence[dict], names: Sequence[str]) -> str:
    """Lay out rows of the ladder, and say which files they come from."""
    rows = []
    for row in found:
        figures, math, code = row["all"], row["math"], row["code"]
        strategy = row["strategy"]
        if strategy in ("jacobi", "window"):
            strategy += f" {row['block_size']}" + ", recycling" * (row["pool_size"] > 0)
        rows.append(
            [
                row["model"],
                strategy,
                f"{figures['accuracy']:.1%} ({figures['accuracy_low']:.1%} to "
                f"{figures['accuracy_high']:.1%})",
                f"**{figures['tokens_per_forward']:.2f}**",
                f"{math['tokens_per_forward']:.2f} / {code['tokens_per_forward']:.2f}",
                f"{row['speedup_median']:.2f}x ({row['speedup_low']:.2f} to "
                f"{row['speedup_high']:.2f})",
                str(row["num_mismatches"] + row["timed_mismatches"]),
            ]
        )
    header = ["model", "decoder, block size", "accuracy (95 % interval)", "tokens per forward"]
    header += ["math / code", "speed-up over its AR", "mismatches"]
    note = (
        f"n = {found[0]['all']['num_problems']} held-out problems. Speed-up: AR seconds / "
        f"seconds per problem at batch 1, same engine, prefill inside; median and quartiles of "
        f"{read(names[0])['num_timed']} of them. Mismatches: answers that are not the ids of the "
        "same model's AR. prompt-lookup copies at most 10 tokens. Source: "
    )
    sources = " ".join(source(read(name), name) for name in names)
    return markdown(header, rows) + "\n\n" + note + sources


def stories() -> str:
    """The real pretrained model before and after."""
    result = read("stories")
    first = result["rows"][0]
    rows = []
    for row in result["rows"]:
        if row["strategy"] != "window":
            continue
        rows.append(
            [
                row["model"],
                f"**{row['tokens_per_forward']:.2f}**",
                f"{row['speedup_median']:.2f}x",
                f"{row['nll_under_original']:.3f} "
                f"({row['nll_under_original'] / first['nll_under_original'] - 1:+.0%})",
                f"{row['distinct_8grams']:.1%}",
                str(row["num_mismatches"]),
            ]
        )
    header = ["model", "tokens per forward (window)", "speed-up over its AR"]
    header += ["NLL under the original", "distinct 8-grams", "mismatches"]
    note = f"n = {result['num_prompts']} prompts sampled from the original. Source: "
    return markdown(header, rows) + "\n\n" + note + source(result, "stories")


def stories_seeds() -> str:
    """The same, a training a round, over seeds."""
    result = read("stories_seeds")
    found: dict[str, list[dict]] = {}
    for row in result["rows"]:
        if row["strategy"] == "window" and row["pool_size"] == 0:
            found.setdefault(row["model"].split(", ")[0], []).append(row)
    first = found["original"][0]
    columns = {
        "tokens per forward (window)": ("tokens_per_forward", "**{}**", ".2f", 1.0),
        "NLL under the original": ("nll_under_original", "{}", ".3f", 1.0),
        "over its own NLL": ("rise", "{} %", "+.0f", 100.0),
        "distinct 8-grams": ("distinct_8grams", "{} %", ".1f", 100.0),
    }
    rows = []
    for model, seeds in found.items():
        for row in seeds:
            row["rise"] = row["nll_under_original"] / first["nll_under_original"] - 1
        cells = [model]
        for key, shown, form, scale in columns.values():
            values = [scale * row[key] for row in seeds]
            one = f"{values[0]:{form}}"
            cells.append(
                shown.format(one if len(seeds) == 1 else paper.over_seeds(values).text(form))
            )
        rows.append([*cells, str(sum(row["num_mismatches"] for row in seeds))])
    note = (
        f"n = {result['num_prompts']} prompts sampled from the original; mean and 95 % interval "
        f"over {max(map(len, found.values()))} seeds. Source: "
    )
    table = markdown(["model", *columns, "mismatches"], rows)
    return f"{table}\n\n{note}{source(result, 'stories_seeds')}"


def average(name: str = "average", rounds: Sequence[str] = ("round 1", "round 2")) -> str:
    """Means of the start and the rounds, by their weights."""
    result = read(name)
    rows = [
        [
            *(f"{weight:g}" if weight else "" for weight in row["weights"]),
            f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})",
            f"{row['tokens_per_forward']:.2f}",
        ]
        for row in result["rows"]
    ]
    header = ["start", *rounds, "accuracy (95 % interval)", "tokens per forward"]
    note = (
        f"n = {2 * int(result['prompts'].removeprefix('bundled:'))} held-out problems of seed "
        f"{result['seed']}, window, block size 16, "
        f"{result.get('pool_size') or 'no'} states recycled. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, name)


def members_seeds() -> str:
    """Members of three seeds and the means of two of them, with intervals over the seeds."""
    rows = read("members_seeds")["rows"]
    lines = []
    for name, chosen in (("members", rows[:3]), ("means of two and 5 % tiny-base", rows[3:6])):
        rate, worth = ([row[key] for row in chosen] for key in ("tokens_per_forward", "accuracy"))
        # Student's t with two degrees of freedom.
        spread, off = (4.303 * statistics.stdev(v) / len(v) ** 0.5 for v in (rate, worth))
        lines.append(
            f"{name}: {statistics.mean(rate):.2f} \u00b1 {spread:.2f} tokens per forward, "
            f"{statistics.mean(worth):.1%} \u00b1 {100 * off:.1f} points"
        )
    table = average("members_seeds", ("seed 2", "seed 3", "seed 4"))
    return f"{table}\n\n95 % over three seeds; {'; '.join(lines)}."


def collecting() -> str:
    """Batched collection against one prompt at a time."""
    result = read("collect_throughput")
    rows = [
        [
            str(row["batch_size"]),
            f"{row['tokens_per_second']:.0f} ({row['lowest']:.0f} to {row['highest']:.0f})",
            f"{row['times_one_at_a_time']:.1f}x",
        ]
        for row in result["rows"]
    ]
    header = ["prompts together", "tokens per second", "against one at a time"]
    return markdown(header, rows) + "\n\nSource: " + source(result, "collect_throughput")


def collect_stage() -> str:
    """The whole collect stage, states and answers, against the engine's own batched decode."""
    result = read("collect_stage")
    rows = [
        [
            Path(row["model"]).name,
            row["record"],
            f"{row['stage_tokens_per_second']:.0f}",
            f"{row['decode_tokens_per_second']:.0f}",
            f"**{row['ratio']:.2f}** ({row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f})",
        ]
        for row in result["rows"]
    ]
    header = ["model", "recorded", "tokens per second, whole stage", "bare decode", "ratio"]
    note = (
        f"The whole `jacobi collect` of {result['num_prompts']} prompts, {result['batch_size']} "
        f"together, block size {result['block_size']}, {result['dtype']}, in turns with the "
        "engine's own batched decode of the same prompts (jacobi for states, AR for answers); "
        "medians, lowest and highest ratio. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "collect_stage")


def pack_speed() -> str:
    """Packing over the number of blocks: tokens per second, and memory that does not grow."""
    result = read("pack_speed")
    rows = [
        [
            f"{row['num_blocks']:,}",
            str(row["workers"]),
            f"{row['tokens']:,}",
            f"{row['full']:.1%}",
            f"{row['tokens_per_second']:,.0f}",
            f"**{row['tokens_per_core_second']:,.0f}**",
            f"**{row['peak_megabytes']:.0f}** ({row['import_megabytes']:.0f} before)",
        ]
        for row in result["rows"]
    ]
    header = ["pairs of blocks", "workers", "packed tokens", "of `--max-length` filled"]
    header += ["tokens per second", "per core and second", "most memory, MB"]
    note = (
        "`jacobi pack --sequence-prompts 0` of synthetic trajectories, blocks of "
        f"{result['block_size']}, median of {result['repeats']}. Processor time includes the "
        "imports of workers, memory is the main process's, which with one worker packs itself. "
        "Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "pack_speed")


def ablation(name: str = "ablation") -> str:
    """Masks, schedules, AR weights, windows and teachers on one budget, over seeds."""
    result = read(name)
    before = result["rows"][0]["before"]
    has_answers = "accuracy" in before
    trained: dict[str, list[dict]] = {}
    for row in result["rows"]:
        trained.setdefault(row["setting"], []).append(row["after"])

    start = next(iter(trained.values()))
    count = max(map(len, trained.values()))

    def line(setting: str, found: list[dict]) -> list[str]:
        def mean(key: str, form: str, scale: float = 1.0) -> str:
            values = [one[key] * scale for one in found]
            if len(values) == 1:
                return f"{values[0]:{form}}"
            return paper.over_seeds(values).text(form)

        def against(key: str) -> tuple[list[float], list[float]]:
            return [one[key] for one in found], [one[key] for one in start]

        cells = [setting, mean("tokens_per_forward", ".3f")]
        if count > 1 and found in (start, [before]):
            cells += ["", ""]
        elif count > 1:
            drifts = [mine - first for mine, first in zip(*against("drift"), strict=True)]
            cells += [
                f"{paper.gain(*against('tokens_per_forward')).text('+.1f', 100)} %",
                paper.over_seeds(drifts).text("+.3f"),
            ]
        if has_answers:
            return [*cells, mean("accuracy", ".1f", 100), mean("drift", ".3f")]
        return [*cells, mean("nll", ".3f"), mean("distinct_8grams", ".1f", 100)]

    rows = [line("before training", [before])]
    rows += [line(*one) for one in trained.items()]
    header = ["setting", "tokens per forward (window)"]
    header += ["against the first, by seed", "drift against the first, nats"] if count > 1 else []
    header += ["accuracy, %", "drift"] if has_answers else ["NLL under the original"]
    header += [] if has_answers else ["distinct 8-grams, %"]
    used = result["settings"]
    seeds = f"; mean and 95 % interval over {count} seeds" if count > 1 else ""
    note = (
        f"{Path(result['model']).name}, {used['max_steps']} steps of {used['batch_size']} "
        f"sequences each, learning rate {used['learning_rate']}, block size "
        f"{used['block_size']}, prompts {used['prompts']}, measured on "
        f"{used['eval_prompts'].rpartition(':')[2]} prompts{seeds}. Source: "
    )
    commits = dict.fromkeys(row["commit"][:12] for row in result["rows"] if "commit" in row)
    trained_at = f" Trained at commits {', '.join(commits)}." if commits else ""
    return markdown(header, rows) + "\n\n" + note + source(result, name) + trained_at


def architectures() -> str:
    """What became of every causal LM of the installed transformers."""
    result = read("architectures")
    parts = []
    for outcome in ("exact", "refused", "wrong", "failing", "not tried"):
        found = [row for row in result["rows"] if row["outcome"] == outcome]
        if not found:
            continue
        if outcome == "exact":
            parts.append(
                f"**Exact ({len(found)}).** " + ", ".join(f"`{r['family']}`" for r in found)
            )
            continue
        lines = markdown(["family", "why"], [[f"`{r['family']}`", r["reason"]] for r in found])
        parts.append(f"**{outcome.capitalize()} ({len(found)}).**\n\n{lines}")
    return "\n\n".join(parts) + "\n\nSource: " + source(result, "architectures")


def multiblock(name: str = "multiblock") -> str:
    """Tokens per forward: block size and branches down, blocks in flight and spawn ratio across."""
    result = read(name)

    def column(row: dict) -> str:
        if row["strategy"] != "multiblock":
            return row["strategy"]
        return f"K {row['max_blocks']}, r {row['spawn_ratio']:g}"

    def line(row: dict) -> tuple[int, int, str]:
        return row["block_size"], row["pool_size"], row["pool"] if row["pool_size"] else ""

    columns = list(dict.fromkeys(column(row) for row in result["rows"]))
    cells = {(line(row), column(row)): f"{row['tokens_per_forward']:.2f}" for row in result["rows"]}
    best = max(result["rows"], key=lambda row: row["tokens_per_forward"])
    cells[line(best), column(best)] = f"**{best['tokens_per_forward']:.2f}**"
    rows = [
        [str(n), str(num or ""), pool, *(cells[(n, num, pool), one] for one in columns)]
        for n, num, pool in dict.fromkeys(line(row) for row in result["rows"])
    ]
    mismatches = sum(row["num_mismatches"] for row in result["rows"])
    note = (
        f"Tokens per forward of {Path(best['model']).name} on {result['num_prompts']} prompts; n "
        "is the block size, K the blocks in flight, r the spawn ratio; branches add up to "
        f"{best['branch_tokens']} tokens. Standard errors are up to "
        f"{max(row['standard_error'] for row in result['rows']):.2f}, most of it shared, because "
        f"the prompts are the same. Mismatches in all: {mismatches}. Source: "
    )
    return (
        markdown(["n", "branches", "from", *columns], rows) + "\n\n" + note + source(result, name)
    )


def recycling() -> str:
    """Where branches come from, how many there are, and how long they may be together."""
    result = read("recycling")
    rows = [
        [
            row["pool"] if row["pool_size"] else "none",
            str(row["pool_size"] or ""),
            str(row["branch_tokens"] or ""),
            f"{row['tokens_per_forward']:.2f} ± {row['standard_error']:.2f}",
            f"{row['guesses_per_forward']:.1f}",
            f"{row['recycled_per_forward']:.2f}",
            str(row["num_mismatches"]),
        ]
        for row in result["rows"]
    ]
    header = ["branches from", "at most", "their tokens", "tokens per forward"]
    header += ["guesses per forward", "right ones only branches had", "mismatches"]
    note = (
        f"{result['rows'][0]['model']}, `window`, block size {result['rows'][0]['block_size']}, "
        f"{result['num_prompts']} prompts, ± the standard error, most of it shared by all rows. "
        "Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "recycling")


def noise() -> str:
    """What drawing tokens costs at a real vocabulary's size."""
    result = read("noise")
    rows = [
        [
            row["way"],
            f"**{row['times_all_noise']:.2f}x**",
            f"{row['milliseconds']:.0f} ({row['milliseconds_low']:.0f} to "
            f"{row['milliseconds_high']:.0f})",
        ]
        for row in result["rows"]
    ]
    note = (
        f"{result['positions']} positions at a vocabulary of {result['vocabulary']:,}, median and "
        "quartiles. Source: "
    )
    header = ["drawing", "time, against all noise", "ms"]
    return markdown(header, rows) + "\n\n" + note + source(result, "noise")


def decode_speed() -> str:
    """Seconds at batch 1: our decoders and transformers' generate."""
    return speeds("decode_speed", lambda result: "")


def vllm_ar() -> str:
    """Seconds at batch 1 beside vLLM's AR."""
    return speeds(
        "vllm_ar",
        lambda result: (
            f", float32, vLLM {result['vllm']} {'eager' if result['eager'] else 'compiled'}"
        ),
    )


def speeds(name: str, more: Callable[[dict], str]) -> str:
    """Lay out what took turns at batch 1."""
    result = read(name)
    rows = [
        [
            row["decoder"],
            f"{row['tokens_per_second']:.0f}",
            f"{row['times_our_ar']:.2f}x ({row['times_our_ar_low']:.2f} to "
            f"{row['times_our_ar_high']:.2f})",
            *([f"{row['times_generate']:.2f}x"] if "times_generate" in row else []),
            str(row["num_mismatches"]),
        ]
        for row in result["rows"]
    ]
    header = ["decoder", "tokens per second", "against our AR (quartiles)"]
    header += ["against generate"] if "times_generate" in result["rows"][0] else []
    note = (
        f"{result['model']}, {result['num_prompts']} prompts at batch 1, block size "
        f"{result['block_size']}, all in turns in one process{more(result)}. Source: "
    )
    return markdown([*header, "mismatches"], rows) + "\n\n" + note + source(result, name)


def batch_speed() -> str:
    """Tokens per second by batch size."""
    result = read("batch_speed")
    rows = [
        [
            str(row["batch_size"]),
            row["decoder"],
            f"{row['tokens_per_second']:.0f} ({row['lowest']:.0f} to {row['highest']:.0f})",
            f"**{row['times_ar']:.2f}x**",
            str(row["guesses_at_the_end"] or ""),
            str(row["num_mismatches"]),
        ]
        for row in result["rows"]
    ]
    header = ["rows", "decoder", "tokens per second", "against AR", "guesses per row", "mismatches"]
    note = (
        f"{result['model']}, block size {result['block_size']}, all rows together; median (lowest "
        f"to highest) of {result['repeats']} turns. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "batch_speed")


def bfloat16(name: str = "bfloat16") -> str:
    """Answers that differ from AR's in half precision, plain and with --exact."""
    result = read(name)
    rows = []
    for row in result["rows"]:
        own, alone = row["from_ar"], row["from_ar_alone"]
        first = own["median_first_place"]
        gap = own["median_gap"]
        rows.append(
            [
                row["kind"],
                str(row["batch_size"]),
                row["decoder"],
                f"{own['num_different']} of {own['num_answers']}",
                f"{alone['num_different']} of {alone['num_answers']}",
                "" if first is None else f"{first:.0f}",
                "" if gap is None else f"{gap:.3f} ({own['largest_gap']:.3f})",
                f"{row['tokens_per_forward']:.2f}",
                f"{row['speed_over_plain_ar']:.2f}x ({row['speed_low']:.2f} to "
                f"{row['speed_high']:.2f})",
            ]
        )
    header = ["forwards", "rows", "decoder", "differ from AR, same rows", "from AR alone"]
    header += ["first at token", "gap of logits there", "tokens per forward", "speed over plain AR"]
    drawn = f"temperature {result['temperature']:g}" if result["temperature"] else "greedy"
    note = (
        f"{result['model']}, {result['rows'][0]['dtype']}, {result['num_prompts']} GSM8K questions "
        f"asked as chats, {result['max_new_tokens']} tokens, {drawn}. AR is that of the same kind "
        "of forwards. First token and gap: medians over the answers that differ; largest gap in "
        "brackets. Speed: median and quartiles over groups of prompts. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, name)


def sampling() -> str:
    """Tokens per forward when sampling, noise shared or not."""
    result = read("sampling")
    ways = {
        "shared noise": "noise shared by draft and text",
        "recycling": "the same, recycling",
        "accept with p": "accept with p(guess)",
    }
    found = {(r["model"], r["temperature"], r["way"]): r for r in result["rows"]}
    measured = {key[2] for key in found}
    ways = {way: title for way, title in ways.items() if way in measured}
    rows = []
    for model, temperature in dict.fromkeys(key[:2] for key in found):
        some = [found[model, temperature, way] for way in ways]
        cells = [f"{r['tokens_per_forward']:.2f} ± {r['standard_error']:.2f}" for r in some]
        rows.append([Path(model).name, str(temperature), *cells])
    note = (
        f"Tokens per forward of window, block size {result['block_size']}, ± the standard error "
        f"over {result['num_prompts']} prompts. Source: "
    )
    header = ["model", "temperature", *ways.values()]
    return markdown(header, rows) + "\n\n" + note + source(result, "sampling")


def sampled_problems() -> str:
    """How many held-out problems are solved when sampling, and how fast."""
    result = read("sampled_problems")
    rows = [
        [
            row["model"],
            str(row["temperature"]),
            f"{row['accuracy']:.1%} ({row['accuracy_low']:.1%} to {row['accuracy_high']:.1%})",
            f"**{row['tokens_per_forward']:.2f}** ± {row['standard_error']:.2f}",
        ]
        for row in result["rows"]
    ]
    header = ["model", "temperature", "accuracy (95 % interval)", "tokens per forward"]
    note = (
        f"n = {result['num_prompts']} held-out problems, one seed each; window with recycling, "
        f"block size {result['block_size']}. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "sampled_problems")


def attention() -> str:
    """What a draft's attention takes, against copying keys."""
    result = read("attention")
    contexts = sorted({row["context"] for row in result["rows"]})
    cells = {(row["heads"], row["width"], row["context"]): row for row in result["rows"]}
    rows = [
        [
            name,
            str(width),
            *(
                f"**{row['part']:.2f}** ({row['low']:.2f} to {row['high']:.2f})"
                for row in (cells[name, width, context] for context in contexts)
            ),
        ]
        for name, width in dict.fromkeys((row["heads"], row["width"]) for row in result["rows"])
    ]
    header = ["heads of", "tokens asked about", *(f"behind {n:,}" for n in contexts)]
    note = f"{result['device']}, {result['dtype']}; median and quartiles. Source: "
    return markdown(header, rows) + "\n\n" + note + source(result, "attention")


def attention_whole() -> str:
    """What attention without copies is worth in whole forwards and steps."""
    result = read("attention_whole")
    rows = [
        [row["what"], f"**{row['part']:.2f}** ({row['low']:.2f} to {row['high']:.2f})"]
        for row in result["rows"]
    ]
    note = f"{result['device']}, {result['dtype']}; median and quartiles. Source: "
    header = [f"of {result['model']}", "part of the time"]
    return markdown(header, rows) + "\n\n" + note + source(result, "attention_whole")


def overhead() -> str:
    """What a step costs beside the model's forward."""
    result = read("overhead")
    rows = [
        [
            str(row["batch_size"]),
            row["decoder"],
            f"{row['share']:.1%} ({row['share_low']:.1%} to {row['share_high']:.1%})",
        ]
        for row in result["rows"]
    ]
    header = ["rows", "decoder", "of the step is outside the model's forward (quartiles)"]
    return markdown(header, rows) + f"\n\n{result['model']}. Source: " + source(result, "overhead")


def train_step() -> str:
    """A packed training step against a plain one over as many tokens."""

    def cell(over: dict) -> str:
        times = f"{over['time']:.2f}x ({over['low']:.2f} to {over['high']:.2f})"
        return f"{times}, {over['processor']:.2f}x, {over['memory']:.2f}x"

    result = read("train_step")
    rows = [
        [
            row["model"],
            row["objective"],
            str(row["tokens"]),
            cell(row["over plain, own loss"]),
            cell(row["over plain, chunked loss"]),
        ]
        for row in result["rows"]
    ]
    what = "time (quartiles), processor time, memory"
    header = ["model", "objective", "tokens", f"over transformers' loss: {what}"]
    header += ["over the same loss in chunks"]
    note = (
        "Medians of turns; memory: the growth of a process of its own, weights "
        "and AdamW's state included. Online steps make drafts first, with a forward more on the "
        "average. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "train_step")


def compiled() -> str:
    """The compiled step against the eager one."""
    result = read("compiled")
    rows = []
    for row in result["rows"]:
        cells = [
            f"{row[name]:.2f}x ({row[name + '_low']:.2f} to {row[name + '_high']:.2f})"
            for name in ("times_eager", "times_own_ar", "times_eager_ar")
        ]
        rows.append([row["decoder"], row["engine"], *cells])
    note = (
        f"{result['model']}, {result['num_prompts']} prompts at batch 1, all in turns in one "
        f"process, medians and quartiles. The first decodes, which compile, took "
        f"{result['first_seconds']:.0f} s together. Answers that differ from the eager ones: "
        f"{result['num_mismatches']}. Source: "
    )
    header = ["decoder", "engine", "against itself eager", "against AR of its engine"]
    header += ["against eager AR"]
    return markdown(header, rows) + "\n\n" + note + source(result, "compiled")


def quantized() -> str:
    """Weights in fewer bits: memory, distance, speed."""
    result = read("quantized")
    num = result["num_prompts"]
    rows = [
        [
            row["quantize"] or "whole",
            row["dtype"],
            f"{row['bytes'] / 1e6:.1f} MB",
            f"{row['equal_answers']} of {num}",
            f"{row['divergence']:.1e}",
            f"{row['autoregressive_times_float32_ar']:.2f}x",
            f"{row['window_times_float32_ar']:.2f}x",
            str(row["num_mismatches"]),
        ]
        for row in result["rows"]
    ]
    header = ["linear layers", "the rest", "weights", "answers as in float32", "divergence"]
    header += ["AR", "window", "mismatches"]
    note = (
        f"{result['model']}, {num} prompts at batch 1, block size {result['block_size']}, all in "
        "turns in one process. Divergence: KL from the float32 model, nats per token of its own "
        "answers. AR, window: times as fast as AR in float32, medians. Mismatches: window answers "
        f"that are not those of AR with the same weights. torchao {result['torchao']}. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "quantized")


def tune_check() -> str:
    """What the tuner predicts and chooses, beside a search of everything."""
    result = read("tune_check")
    rows = [
        [
            row["model"],
            str(row["num_rows"]),
            f"{row['chosen']}: {row['chosen_times_ar']:.2f}x",
            f"{row['best']}: {row['best_times_ar']:.2f}x",
            f"**{row['part_of_best']:.1%}**",
            f"{row['largest_error_of_tried']:+.0%}",
            f"{row['largest_error_of_tried_against_ar']:+.0%}",
            f"{row['median_error_of_all_against_ar']:.0%}",
        ]
        for row in result["rows"]
    ]
    header = ["model", "rows", "chosen: against AR", "best of all: against AR", "part of the best"]
    header += ["largest error of what was tried", "the same, against AR"]
    header += ["median error of all, against AR"]
    note = (
        f"Best of all: of {result['rows'][0]['num_candidates']} decoders, each run for real, the "
        "fastest few were run again beside the chosen one, for five times as many turns. Errors "
        "are of predicted tokens per second; against AR means as ratios to AR's, so that a machine "
        "that is slower at another minute does not count. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "tune_check")


def serve_overhead() -> str:
    """What streams cost over the engine called directly."""
    header = {"overhead": "seconds over HTTP against the engine called directly (quartiles)"}
    note = "full width, one thread each; a client that only asks and reads"
    return _serve("serve_overhead", "streams", header, "{:+.1%}", note)


def serve_throughput() -> str:
    """Requests per second against an AR server."""
    header = {
        "times_ar": "requests per second against `--strategy autoregressive` (quartiles)",
        "by_chance": "that one against itself",
    }
    note = "automatic width, greedy streams, all in turns"
    return _serve("serve_throughput", "clients", header, "{:.2f}x", note)


def _serve(name: str, key: str, figures: dict[str, str], form: str, note: str) -> str:
    """Lay out ratios for every number of clients."""

    def cell(found: dict[str, float]) -> str:
        middle, low, high = (form.format(found[of]) for of in ("median", "low", "high"))
        return f"{middle} ({low} to {high})"

    result = read(name)
    rows = [[str(row[key]), *(cell(row[figure]) for figure in figures)] for row in result["rows"]]
    note = f"\n\n{result['model']}, {note}. Source: "
    return markdown([key, *figures.values()], rows) + note + source(result, name)


def likeliest() -> str:
    """Two ways to find the likeliest token."""
    result = read("likeliest")
    rows = [
        [
            row["dtype"],
            f"{row['shape'][0]} x {row['shape'][1]:,}",
            f"{row['torch']:.0f}",
            f"{row['numpy']:.0f}",
            f"{row['times_faster']:.1f}x ({row['low']:.1f} to {row['high']:.1f})",
        ]
        for row in result["rows"]
    ]
    header = ["logits", "places x vocabulary", "PyTorch, microseconds", "numpy", "faster"]
    return markdown(header, rows) + "\n\nSource: " + source(result, "likeliest")


def vllm_chain() -> str:
    """What the vLLM plugin's chain takes."""
    result = read("vllm_chain")
    rows = [
        [row["way"], f"{row['num_forwards']:,}", f"{row['num_tokens'] / row['num_forwards']:.2f}"]
        for row in result["rows"]
    ]
    header = ["draft", "forwards", "tokens per forward"]
    note = (
        f"\n\n{result['model']}, {result['num_prompts']} held-out problems, {result['width']} "
        "guesses, in our own loop; the chains draft nothing with the prompt, as in vLLM. Source: "
    )
    return markdown(header, rows) + note + source(result, "vllm_chain")


def scoring() -> str:
    """What scoring the published solutions takes."""
    result = read("scoring")
    *sets, last = result["rows"]
    header = ["set", "published solutions that pass", "seconds"]
    rows = [[r["set"], f"{r['solved']} of {r['answers']}", f"{r['seconds']:.1f}"] for r in sets]
    programs = [row for row in sets if row["set"] in ("humaneval", "mbpp")]
    each = sum(row["seconds"] for row in programs) / sum(row["answers"] for row in programs)
    note = (
        f"As chat replies. 1,000 programs at that rate: {1000 * each:.0f} s; processes of the "
        f"sandbox that were left: {last['left_behind']}. Source: "
    )
    return markdown(header, rows) + "\n\n" + note + source(result, "scoring")


def serve_soak() -> str:
    """What clients of all kinds got."""
    result = read("serve_soak")
    rows = []
    for row in result["rows"]:
        counts = row["counts"]
        rows.append(
            [
                row["strategy"],
                f"{counts.get('right', 0)}",
                f"{counts.get('WRONG', 0)}",
                f"{counts.get('left', 0)}",
                f"{counts.get('refused', 0)} / {counts.get('NOT REFUSED', 0)}",
                f"{row['rows_left']:.0f}",
                f"{row['megabytes_early']:.0f} / {row['megabytes_late']:.0f}",
                f"{row['first_token_p50']:.2f} / {row['first_token_p99']:.2f}",
            ]
        )
    header = ["decoder", "answers that are the offline decode's", "other answers"]
    header += ["clients that left"]
    header += ["bad requests refused / not", "rows left at the end", "MB early / late"]
    header += ["seconds to the first token, p50 / p99"]
    first = result["rows"][0]
    note = f"{result['model']}, {first['clients']} clients for {first['minutes']:g} minutes each. "
    return markdown(header, rows) + "\n\n" + note + "Source: " + source(result, "serve_soak")


def _miniature(table: tuple[list[str], list[list[str]]], name: str, note: str) -> str:
    """Lay out a table of docs/miniature.md."""
    return markdown(*table) + f"\n\n{note} Source: " + source(read(name), name)


def miniature_decoding(
    name: str = "miniature", texts: str = "tiny-base and tiny-forced, {} held-out problems"
) -> str:
    """What the paper says about decoding, and what we find."""
    result = read(name)
    note = (
        f"{texts.format(result['problems'])} for each of {result['seeds']} seeds; ± is half a 95 % "
        "interval over the seeds. Answers that are not AR's: "
        f"{sum(row.get('num_mismatches', 0) for row in result['rows'])}."
    )
    table = paper.claims_table(paper.decoding_claims(result))
    return _miniature(table, name, note)


def miniature_training() -> str:
    """What the paper says about training, and what we find on the bundled pair."""
    return _training_claims(
        "ablation_tiny_seeds",
        "tiny-base",
        "2026-11-23--mask-and-schedule-on-tiny-base",
        [paper.second_round_claim(read)],
    )


def _training_claims(name: str, model: str, entry: str, more: Sequence[paper.Claim] = ()) -> str:
    result = read(name)
    used = result["settings"]
    note = (
        f"{model}, {used['max_steps']} steps of {used['batch_size']} sequences, {used['seeds']} "
        f"seeds ([the trainings](experiments.md#{entry}))."
    )
    note += " The second round: the bundled pair's records." if more else ""
    claims = [*paper.training_claims(result), *more]
    return _miniature(paper.claims_table(claims), name, note)


def miniature_speed() -> str:
    """What the paper says about seconds, and what we find."""
    table = paper.claims_table(paper.speed_claims(read, read("miniature")))
    note = "Speed-ups: `ladder.json`, and `compiled.json`, which is of the first pair."
    return _miniature(table, "miniature", note)


def miniature_sizes(name: str = "miniature", model: str = "tiny-forced") -> str:
    """Tokens per forward by block size and decoder."""
    return _miniature(paper.sizes_table(read(name)), name, f"{model}.")


def miniature_settings(name: str = "miniature", model: str = "tiny-forced") -> str:
    """Tokens per forward by setting of multi-block decoding."""
    note = f"{model}, n = 32, else K = 2, r = 0.85, pool 4."
    return _miniature(paper.settings_table(read(name)), name, note)


def miniature_widths() -> str:
    """What a wider forward costs."""
    note = "tiny-forced behind 128 tokens; medians and quartiles of turns."
    return _miniature(paper.widths_table(read("miniature")), "miniature", note)


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        ladder,
        ladder_first,
        average,
        stories,
        stories_seeds,
        collecting,
        attention,
        attention_whole,
        collect_stage,
        pack_speed,
        ablation,
        architectures,
        multiblock,
        recycling,
        noise,
        decode_speed,
        vllm_ar,
        batch_speed,
        bfloat16,
        sampling,
        sampled_problems,
        overhead,
        train_step,
        compiled,
        quantized,
        tune_check,
        likeliest,
        vllm_chain,
        serve_overhead,
        serve_throughput,
        serve_soak,
        scoring,
        miniature_decoding,
        miniature_training,
        miniature_speed,
        miniature_sizes,
        miniature_settings,
        miniature_widths,
    )
}
TABLES["multiblock_stories"] = lambda: multiblock("multiblock_stories")
TABLES["average_polish"] = lambda: average("average_polish", ("tiny-forced", "trained on"))
TABLES["average_members"] = lambda: average(
    "average_members", ("first tiny-forced", "member 1", "member 2")
)
TABLES["members_seeds"] = lambda: members_seeds()
TABLES["loss_stories"] = lambda: ablation("loss_stories")
TABLES["loss_stories_once"] = lambda: ablation("loss_stories_once")
TABLES["loss_tiny"] = lambda: ablation("loss_tiny")
_FORCED_STORIES = ("miniature_stories", "The forced TinyStories 260K")
TABLES["miniature_stories_decoding"] = lambda: miniature_decoding(
    "miniature_stories",
    "TinyStories 260K before and after, {} beginnings that the original sampled",
)
TABLES["miniature_stories_sizes"] = lambda: miniature_sizes(*_FORCED_STORIES)
TABLES["miniature_stories_settings"] = lambda: miniature_settings(*_FORCED_STORIES)
TABLES["miniature_stories_training"] = lambda: _training_claims(
    "ablation_seeds", "TinyStories 260K", "2026-11-22--mask-and-schedule-over-three-seeds"
)
TABLES["ablation_seeds"] = lambda: ablation("ablation_seeds")
TABLES["ablation_tiny_seeds"] = lambda: ablation("ablation_tiny_seeds")


def filled(text: str) -> str:
    """Put fresh tables into a page."""

    def table(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        fresh = filled(text)
        if fresh != text:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(fresh)
    print(f"out of date: {', '.join(stale)}" if stale else "up to date")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
