"""What the paper found, and whether our own figures, at their size, say the same.

Every claim has the paper's figure (arXiv 2512.14681 v1, where in it), ours with a 95 % interval
over seeds (Student's t), and a verdict that follows from the interval alone.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

AGREES, DISAGREES, OPEN = "agrees", "**disagrees**", "cannot be said"

# 97.5 % points of Student's t by the number of seeds.
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}


class Interval(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """Its lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self.half

    def text(self, form: str = ".2f", scale: float = 1.0) -> str:
        """Write it, mean and half width alike."""
        return f"{self.mean * scale:{form}} ± {self.half * scale:{form.lstrip('+')}}"


def over_seeds(values: Sequence[float]) -> Interval:
    """Give the interval of a figure that every seed has one of."""
    half = _STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return Interval(statistics.mean(values), half)


class Claim(NamedTuple):
    """One line of the page."""

    says: str
    paper: str
    ours: str
    verdict: str


class Figures:
    """Figures by seed of one result of miniature.py."""

    def __init__(self, result: dict):
        self.rows = [row for row in result["rows"] if "seed" in row]
        self.widths = [row for row in result["rows"] if "width" in row]

    def by_seed(self, model: str = "forced", figure: str = "tokens_per_forward", **same: Any):
        """Give a figure of one decoder of one model, in the order of seeds."""
        found = [
            row
            for row in self.rows
            if row["model"] == model and all(row[key] == value for key, value in same.items())
        ]
        return [row[figure] for row in sorted(found, key=lambda row: row["seed"])]

    def plain(self, strategy: str, size: int, model: str = "forced") -> list[float]:
        """Give tokens per forward without recycling."""
        return self.by_seed(model, strategy=strategy, block_size=size, pool_size=0)

    def recycling(
        self,
        size: int,
        blocks: int = 2,
        ratio: float = 0.85,
        pool: int = 4,
        figure: str = "tokens_per_forward",
    ) -> list[float]:
        """Give a figure of multi-block decoding with recycling."""
        same = {"block_size": size, "max_blocks": blocks, "spawn_ratio": ratio, "pool_size": pool}
        return self.by_seed(figure=figure, strategy="multiblock", **same)


def gain(ours: Sequence[float], over: Sequence[float]) -> Interval:
    """Give by which part one figure is above another, seed by seed."""
    return over_seeds([a / b - 1 for a, b in zip(ours, over, strict=True)])


def is_above(found: Interval, edge: float = 0.0) -> str:
    """Judge a claim that a figure lies above an edge."""
    if found.low > edge:
        return AGREES
    return DISAGREES if found.high < edge else OPEN


def is_below(found: Interval, edge: float) -> str:
    """Judge a claim that a figure lies below an edge."""
    return is_above(Interval(-found.mean, found.half), -edge)


def decoding_claims(result: dict) -> list[Claim]:
    """Judge what the paper says about decoding."""
    at = Figures(result)
    base = over_seeds(at.plain("jacobi", 16, "base"))
    best = {n: over_seeds(at.plain("jacobi", n)) for n in (8, 16, 32, 64)}
    fastest = max(best, key=lambda n: best[n].mean)
    recycled = gain(at.recycling(64), at.plain("jacobi", 64))
    claims = [
        Claim(
            "Jacobi decoding of a model that was not trained for it gains nothing",
            "1.01 to 1.05 tokens per forward (tables 1, 2)",
            f"{base.text()}",
            is_below(base, 1.1),
        ),
        Claim(
            "a forced model settles several tokens per forward in plain blocks",
            "2.74 to 4.01 (tables 1, 2)",
            f"{best[fastest].text()} at n = {fastest}",
            is_above(best[fastest], 2.74),
        ),
        Claim(
            "several blocks in flight and recycling add to that",
            "+2 to +9 % tokens per forward (tables 1, 2)",
            f"{recycled.text('+.0f', 100)} % at n = 64",
            is_above(recycled),
        ),
    ]
    if "accuracy" in at.rows[0]:
        before = at.by_seed("base", "accuracy", strategy="window")
        after = at.by_seed("forced", "accuracy", **_OURS)
        change = over_seeds([b - a for a, b in zip(before, after, strict=True)])
        claims.append(
            Claim(
                "training costs little accuracy",
                "-4.3, -3.9, -1.0, +0.4 points (tables 1, 2)",
                f"{change.text('+.1f', 100)} points",
                is_above(change, -0.043),
            )
        )
    return [*claims, *_size_claims(at), *_setting_claims(at)]


_OURS = {"strategy": "window", "block_size": 16, "pool_size": 4}


def _size_claims(at: Figures) -> list[Claim]:
    sizes = (8, 16, 32, 64)
    grown = {n: gain(at.recycling(2 * n), at.recycling(n)) for n in sizes[:-1]}
    steps = [is_above(one) for one in grown.values()]
    lead = {
        n: min(
            (gain(at.recycling(n), at.plain(strategy, n)) for strategy in ("jacobi", "window")),
            key=lambda one: one.mean,
        )
        for n in sizes
    }
    leads = [is_above(one) for one in lead.values()]
    return [
        Claim(
            "larger blocks settle more per forward",
            "n = 8 to 256 (figure 5b, no values)",
            ", ".join(f"n {n} to {2 * n}: {one.text('+.0f', 100)} %" for n, one in grown.items()),
            _together(steps),
        ),
        Claim(
            "multi-block decoding with recycling settles most at every n, before the running "
            "window and plain Jacobi",
            "figure 5b, no values",
            ", ".join(f"n {n}: {one.text('+.0f', 100)} %" for n, one in lead.items())
            + " over the better of the two",
            _together(leads),
        ),
    ]


def _setting_claims(at: Figures) -> list[Claim]:
    second = gain(at.recycling(32), at.recycling(32, blocks=1))
    third = gain(at.recycling(32, blocks=3), at.recycling(32))
    ratios = [0.0, 0.25, 0.5, 0.75, 1.0]
    rival = max(ratios, key=lambda r: statistics.mean(at.recycling(32, ratio=r)))
    lost = gain(at.recycling(32), at.recycling(32, ratio=rival))
    pools = {pool: at.recycling(32, pool=pool) for pool in (0, 1, 2, 4, 8)}
    most = max(pools, key=lambda pool: statistics.mean(pools[pool]))
    one = gain(pools[1], pools[most])
    return [
        Claim(
            "a second block in flight pays, a third does not",
            "saturates at K = 2 (section 4.3)",
            f"n = 32: second {second.text('+.1f', 100)} %, third {third.text('+.1f', 100)} %",
            _together([is_above(second), is_below(third, 0.01)]),
        ),
        Claim(
            "the next block is best opened when 85 % of one is accepted",
            "r = 0.85 at n = 64 (section 4.3)",
            f"n = 32: r = 0.85 is {lost.text('+.0f', 100)} % off r = {rival:g}",
            is_above(lost),
        ),
        Claim(
            "few old states are enough to recycle from",
            "2 to 8 best; one within some 10 % (figure 7, by eye)",
            f"n = 32: best {most}; with one {one.text('+.0f', 100)} %",
            is_above(one, -0.1),
        ),
    ]


def _together(verdicts: Sequence[str]) -> str:
    """Judge a claim about several cases by all of them."""
    if all(one == AGREES for one in verdicts):
        return AGREES
    return DISAGREES if DISAGREES in verdicts else OPEN


def training_claims(result: dict) -> list[Claim]:
    """Judge what the paper says about masks and schedules, from trainings of several seeds."""
    trained: dict[str, list[float]] = {}
    for row in result["rows"]:
        trained.setdefault(row["setting"], []).append(row["after"]["tokens_per_forward"])
    base = next(iter(trained))

    def against(setting: str, says: str, paper: str) -> Claim:
        found = gain(trained[base], trained[setting])
        return Claim(
            says, paper, f"{found.text('+.1f', 100)} % tokens per forward", is_above(found)
        )

    return [
        against(
            "schedule random",
            "noise that grows from block to block teaches more than random noise",
            "0.46 against 0.51 forwards per token: +11 % (table 4)",
        ),
        against(
            "schedule reverse",
            "... and more than noise that falls",
            "0.46 against 0.62: +35 % (table 4)",
        ),
        against(
            "mask windowed",
            "noisy blocks that see all noisy blocks before them learn more than those that see "
            "their own window's",
            "3.6x against 1.9x (table 5)",
        ),
        against(
            "mask clean-context",
            "... and more than those that see clean text, as in CLLM",
            "3.86x against 2.50x (table 1; CLLM* also lacks the second round)",
        ),
    ]


def second_round_claim(read: Callable[[str], dict]) -> Claim:
    """Set our second round beside the paper's."""
    first, second = (read(f"tiny_round_{number}")["after"] for number in (1, 2))
    more = second["tokens_per_forward"] / first["tokens_per_forward"] - 1
    points = second["accuracy"] - first["accuracy"]
    return Claim(
        "a second round with larger blocks, on fresh trajectories",
        "about +20 % speed for a small loss (section 3.1)",
        f"{more:+.0%} tokens per forward, {100 * points:+.1f} points (tiny pair, one seed)",
        OPEN,
    )


def speed_claims(read: Callable[[str], dict], result: dict) -> list[Claim]:
    """Judge what the paper says about seconds."""
    ours = next(
        row
        for row in read("ladder")["rows"]
        if row["model"] == "tiny-forced" and all(row[k] == v for k, v in _OURS.items())
    )
    low, kept, high = (
        ours[f"speedup_{which}"] / ours["tokens_per_forward"] for which in ("low", "median", "high")
    )
    widths = {row["width"]: row for row in result["rows"] if "width" in row}
    free = max(width for width, row in widths.items() if row["cost"] <= 1.1)
    compiled = {(r["decoder"], r["engine"]): r for r in read("compiled")["rows"]}
    fast = compiled["window 16, recycling", "compiled"]
    return [
        Claim(
            "nearly all of the tokens per forward become speed",
            "0.94 to 0.97 of them (tables 1 to 3)",
            f"{kept:.2f} of them on two CPU cores (quartiles of problems {low:.2f} to {high:.2f})",
            is_above(Interval((low + high) / 2, (high - low) / 2), 0.9),
        ),
        Claim(
            "tokens in a forward are free up to a point",
            "128 on an A100, 256 on H200 and B200 (appendix D)",
            f"up to {free} on a CPU (at most 1.1 times one token's cost); 16 cost "
            f"{widths[16]['cost']:.1f}, 64 cost {widths[64]['cost']:.1f}, 256 cost "
            f"{widths[256]['cost']:.1f} times as much",
            AGREES if free >= 128 else DISAGREES,
        ),
        Claim(
            "measured by others: against a fast AR engine the gain is much smaller",
            "4.70x an eager loop, 1.75x an AR engine with CUDA graphs (SqueezeBits, H100)",
            f"{fast['times_eager_ar']:.2f}x eager AR, {fast['times_own_ar']:.2f}x compiled AR",
            AGREES if fast["times_own_ar"] < 0.75 * fast["times_eager_ar"] else DISAGREES,
        ),
    ]


def claims_table(claims: Sequence[Claim]) -> tuple[list[str], list[list[str]]]:
    """Lay claims out beside each other."""
    return ["the paper says", "its figure", "here", "verdict"], [list(claim) for claim in claims]


def sizes_table(result: dict) -> tuple[list[str], list[list[str]]]:
    """Lay out tokens per forward by block size and decoder."""
    at, rows = Figures(result), []
    for size in (8, 16, 32, 64):
        kinds = (at.plain("jacobi", size), at.plain("window", size), at.recycling(size))
        rows.append([str(size), *(over_seeds(values).text() for values in kinds)])
    return ["n", "plain Jacobi", "running window", "K = 2, r = 0.85, pool 4"], rows


def settings_table(result: dict) -> tuple[list[str], list[list[str]]]:
    """Lay out what each setting of multi-block decoding changes at block size 32."""
    at, rows = Figures(result), []
    changes: list[tuple[str, list[dict]]] = [
        ("blocks in flight K", [{"blocks": n} for n in (1, 2, 3)]),
        ("spawn ratio r", [{"ratio": r} for r in (0.0, 0.25, 0.5, 0.75, 0.85, 1.0)]),
        ("pool", [{"pool": n} for n in (0, 1, 2, 4, 8)]),
    ]
    for name, values in changes:
        cells = []
        for change in values:
            (value,) = change.values()
            speed = over_seeds(at.recycling(32, **change)).text()
            guesses = at.recycling(32, **change, figure="guesses_per_forward")
            cells.append(f"{value:g}: {speed} ({statistics.mean(guesses):.0f})")
        rows.append([name, "; ".join(cells)])
    return ["changed", "tokens per forward (guesses in a forward)"], rows


def widths_table(result: dict) -> tuple[list[str], list[list[str]]]:
    """Lay out what a forward over several tokens costs."""
    widths = Figures(result).widths
    header = ["tokens in a forward", *(str(row["width"]) for row in widths)]
    cells = [f"{row['cost']:.2f} ({row['low']:.2f} to {row['high']:.2f})" for row in widths]
    return header, [["times the cost of one", *cells]]
