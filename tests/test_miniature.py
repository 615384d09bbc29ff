"""The page that sets the paper's figures beside ours: verdicts follow from the intervals."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import paper
from paper import AGREES, DISAGREES, OPEN, Interval, gain, is_above, is_below, over_seeds


def test_an_interval_is_students():
    # Mean 2, standard deviation 1, three values: 4.303 / sqrt(3).
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(2.0)
    assert found.half == pytest.approx(2.484, abs=1e-3)
    assert over_seeds([1.5, 1.5, 1.5]).half == 0
    assert found.text("+.1f") == "+2.0 ± 2.5"


@pytest.mark.parametrize(
    ("mean", "half", "verdict"),
    [(1.0, 0.5, AGREES), (1.0, 1.5, OPEN), (-1.0, 0.5, DISAGREES), (0.0, 0.0, OPEN)],
)
def test_a_verdict_is_the_intervals(mean, half, verdict):
    assert is_above(Interval(mean, half)) == verdict
    opposite = {AGREES: DISAGREES, DISAGREES: AGREES, OPEN: OPEN}[verdict]
    assert is_below(Interval(mean, half), 0.0) == opposite


def test_a_gain_is_taken_seed_by_seed():
    # Seeds differ much more than decoders do: unpaired, nothing could be said.
    assert is_above(gain([1.1, 2.2, 4.41], [1.0, 2.0, 4.0])) == AGREES
    assert is_above(gain([1.0, 2.0, 4.0], [1.1, 2.2, 4.41])) == DISAGREES
    assert is_above(gain([1.1, 2.0, 4.0], [1.0, 2.2, 4.0])) == OPEN


def trainings(**speeds):
    """An ablation whose settings came to these tokens per forward, by seed."""
    names = {"base": "paper's", **{n: f"{n.split('_')[0]} {n.split('_')[1]}" for n in speeds}}
    names = {name: label.replace("clean", "clean-context") for name, label in names.items()}
    return {
        "rows": [
            {"setting": names[name], "after": {"tokens_per_forward": value}}
            for name, values in (("base", [1.2, 1.21, 1.22]), *speeds.items())
            for value in values
        ]
    }


def test_training_claims_follow_the_trainings():
    slower, faster, same = [1.1, 1.11, 1.12], [1.3, 1.32, 1.34], [1.19, 1.21, 1.24]
    result = trainings(
        schedule_random=slower, schedule_reverse=same, mask_windowed=slower, mask_clean=faster
    )
    verdicts = [claim.verdict for claim in paper.training_claims(result)]
    assert verdicts == [AGREES, OPEN, AGREES, DISAGREES]
    rounds = {"after": {"tokens_per_forward": 2.0, "accuracy": 0.9}}
    faster = {"after": {"tokens_per_forward": 2.4, "accuracy": 0.89}}
    second = paper.second_round_claim({"tiny_round_1": rounds, "tiny_round_2": faster}.__getitem__)
    assert "+20% tokens per forward, -1.0 points" in second.ours
