"""Tuning: predictions equal what a slow simulation gives, and nothing of it changes an answer."""

import itertools
import json
import logging
import random
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from toys import save_toy, toy_model
from transformers import AutoModelForCausalLM

from jacobi_forcing.cli import main
from jacobi_forcing.config import DecodeConfig, DecoderConfig, EvaluateConfig
from jacobi_forcing.decoding import Finished, Forward, Request, decode, make_strategy
from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.cost import (
    Clock,
    Curve,
    LoopCost,
    Shape,
    Timed,
    decode_seconds,
    fit_loop_cost,
    forward_seconds,
    measure_curve,
    sizes,
    together,
)
from jacobi_forcing.decoding.imitation import (
    Imitation,
    Step,
    Text,
    imitate,
    predict_steps,
    tokens_per_forward,
)
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.plan import Costs, Plan, left_out, planned, trial_tokens
from jacobi_forcing.decoding.predict import Prediction, Predictor, candidates, promising
from jacobi_forcing.decoding.trials import Runner, best_of
from jacobi_forcing.integrations.generate import generate
from jacobi_forcing.models import load_model
from jacobi_forcing.models.tuning import default_place, fill_in, machine_of, read_tuning
from jacobi_forcing.problems import held_out
from jacobi_forcing.stages.machine import tuned

FREE = LoopCost(0.0, 0.0, 0.0)


def texts(num=6, length=60, seed=0):
    rng = random.Random(seed)
    return [Text([2, 3, 4], rng.choices(range(5, 60), k=length)) for _ in range(num)]


def by_chance(right):
    """A model whose choices behind wrong guesses are right with a probability."""
    counts = Counter({"right": int(1000 * right), "other": 1000 - int(1000 * right)})
    return Imitation({(): counts}, Counter())


def curve_of(cost, rows=(1, 4), widest=16):
    shapes = [Shape(n, c, w) for n in rows for c in (0, 100) for w in sizes(widest)]
    prefills = [Shape(n, 0, w) for n in rows for w in (1, 8, 32)]
    return Curve(
        {shape: cost(shape.num_rows * shape.width) for shape in shapes},
        {shape: cost(shape.num_rows * shape.width) for shape in prefills},
    )


COSTS = {
    "flat": lambda tokens: 1.0,
    "by the token": lambda tokens: 0.1 * tokens,
    "both": lambda tokens: 1.0 + tokens / 16,
}


def slow_window(right, size, texts, seed):
    """Tokens per forward of a window, guess by guess, from nothing but what the words mean."""
    rng = random.Random(seed)
    num_tokens = num_forwards = 0
    for text in texts:
        left, good = len(text.answer), [False] * (size - 1)  # noise
        while left:
            limit = min(size - 1, left - 1)
            accepted = 1 + next((i for i, ok in enumerate(good[:limit]) if not ok), limit)
            # Behind the first wrong guess every choice is drawn.
            good = [rng.random() < right for _ in range(limit + 1 - accepted)]
            good += [False] * (size - 1 - len(good))
            left -= accepted
            num_tokens += accepted
            num_forwards += 1
    return num_tokens / num_forwards


@pytest.mark.parametrize("right", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("size", [2, 5, 16])
def test_predicted_tokens_per_forward_are_those_of_a_slow_simulation(right, size):
    # All tokens of a text are distinct: noise from the prompt is never right by chance.
    some = [Text([2, 3, 4], list(range(5, 65))) for _ in range(60)]
    window = DecoderConfig(strategy="window", block_size=size, pool_size=0)
    steps = predict_steps(by_chance(right), some, window, vocab_tokens=64, most_tokens=60)
    slow = slow_window(right, size, some * 5, seed=1)
    assert tokens_per_forward(steps) == pytest.approx(slow, rel=0.05)
    assert all(sum(s.num_settled for s in request) == 60 for request in steps)
    if right == 0.0:
        assert slow == 1.0
    else:
        assert slow > 1.2


@pytest.mark.parametrize("num_rows", [1, 3])
def test_steps_come_together_as_in_the_real_loop(num_rows):
    model = toy_model("qwen2")
    prompts = [[5 + i, 9, 11 + i][: 1 + i % 3] for i in range(7)]
    config = DecoderConfig(block_size=4, pool_size=0)
    events = decode(
        model,
        [Request(i, ids, 9) for i, ids in enumerate(prompts)],
        lambda request: make_strategy(config, model.vocab_tokens, 0),
        batch_size=num_rows,
    )
    steps, real = [[] for _ in prompts], []
    for event in events:
        if isinstance(event, Forward):
            steps[event.request].append(Step(event.request, 0, len(event.accepted)))
            real.append((event.request, event.offset == 0))
    found = [(s.num_tokens, one.is_prefill) for one in together(steps, num_rows) for s in one.steps]
    assert sorted(found) == sorted(real)
    # Prefills and the running rows' forwards come in the loop's own order.
    groups = [sorted(g) for _, g in itertools.groupby(found, key=lambda pair: pair[1])]
    assert groups == [sorted(g) for _, g in itertools.groupby(real, key=lambda pair: pair[1])]
    assert max(len(one.steps) for one in together(steps, num_rows)) == num_rows


@pytest.mark.parametrize("right", [0.02, 0.6, 0.9])
@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_the_choice_is_the_best_of_an_exhaustive_search(right, cost):
    some, curve, imitation = texts(), curve_of(cost), by_chance(right)
    predictor = Predictor(imitation, some, curve, vocab_tokens=64, most_tokens=60)
    found = predictor.all(1, 12, FREE)
    assert len(found) == len(list(candidates(12))) > 20

    def slow(decoder):
        """Tokens per second, one forward after the other."""
        requests = predict_steps(imitation, some, decoder, vocab_tokens=64, most_tokens=60)
        seconds = sum(cost(step.num_tokens) for request in requests for step in request)
        return sum(step.num_settled for request in requests for step in request) / seconds

    speeds = {decoder: slow(decoder) for decoder in candidates(12)}
    assert found[0].tokens_per_second == pytest.approx(max(speeds.values()), rel=1e-6)
    for one in found:
        assert one.tokens_per_second == pytest.approx(speeds[one.decoder], rel=1e-6)
    tried = promising(found, 4)
    assert len(tried) <= 5
    assert tried[0].decoder.strategy == "autoregressive"
    if right == 0.02 and cost is COSTS["by the token"]:
        assert found[0].decoder.strategy == "autoregressive"
    if right == 0.9 and cost is COSTS["flat"]:
        assert found[0].decoder.block_size > 4
        assert found[0] in tried


def test_a_curve_is_straight_between_what_was_measured_and_goes_on_beyond():
    curve = curve_of(lambda tokens: 1 + tokens / 16)
    for rows, width in [(1, 1), (1, 5), (2, 7), (4, 16), (1, 32)]:
        assert curve(rows, 50, width) == pytest.approx(1 + rows * width / 16)
    assert curve.free_width(1) == 2
    assert curve.widest(4) == 16
    stepped = replace(curve, is_stepped=True)
    assert stepped(1, 50, 5) == curve(1, 50, 6)


@pytest.mark.parametrize("drift", [1.0, 0.8, 1.5])
def test_what_a_decode_takes_is_found_from_others(drift):
    """Whatever the machine's speed has become since the curve was measured."""
    curve, true = curve_of(COSTS["both"]), LoopCost(0.3, 0.01, 0.02, drift)

    def forwards(num):
        return list(together([[Step(8, 0, 1), *[Step(num, 8, 1)] * 9]] * 5, 4))

    def seconds(cost, num, has_branches):
        """One step after the other."""
        return sum(
            cost.drift * curve.prefill(len(one.steps), 8) + cost.seconds * len(one.steps)
            if one.is_prefill
            else cost.drift * curve(len(one.steps), 8, num)
            + sum(cost.of(step, has_branches) for step in one.steps)
            for one in forwards(num)
        )

    known = [(1, False), (3, False), (6, False), (14, False), (8, True), (12, True)]
    timed = [Timed(forwards(num), kind, seconds(true, num, kind)) for num, kind in known]
    found = fit_loop_cost(curve, timed)
    if drift == 1:
        assert found == pytest.approx(true)
    for num, kind in [*known, (2, False), (10, False), (10, True)]:
        mine = decode_seconds(curve, found, forwards(num), kind)
        assert mine == pytest.approx(seconds(found, num, kind))
        assert mine == pytest.approx(seconds(true, num, kind), rel=0.03)


def test_no_cost_is_negative_where_noise_would_have_it_so():
    curve = curve_of(COSTS["both"])
    forwards = [list(together([[Step(8, 0, 1), *[Step(n, 8, 1)] * 9]], 1)) for n in (1, 4, 12, 12)]
    for factors in itertools.product((0.7, 1.4), repeat=4):
        timed = [
            Timed(steps, number == 3, factor * forward_seconds(curve, steps))
            for number, (steps, factor) in enumerate(zip(forwards, factors, strict=True))
        ]
        found = fit_loop_cost(curve, timed)
        assert min(found) >= 0
        for steps, has_branches, _ in timed:
            off = decode_seconds(curve, found, steps, has_branches) / forward_seconds(curve, steps)
            assert 0.6 < off < 1.6


def test_heats_leave_the_slower_half_behind():
    """Of decoders that differ by much: what a look at every one finds is found by the race."""
    model = load_model("tiny-forced", probed=False)
    prompts = [model.tokenizer.encode(p.prompt) for p in held_out("all", 4, 3)]
    decoded = decode_all(model, prompts, AUTOREGRESSIVE, max_new_tokens=14)
    some = [Text(*pair) for pair in zip(prompts, decoded.answers, strict=True)]
    runner = Runner(model, some, 2, most_tokens=14)
    fast = [DecoderConfig(block_size=size, pool_size=0) for size in (10, 11, 12, 13)]
    # A wide draft of the slow ones costs more than it brings.
    slow = [DecoderConfig(block_size=2, pool_size=num) for num in (1, 2, 3, 4, 5, 6)]
    every = [AUTOREGRESSIVE, *slow, *fast]
    # All are predicted to be equally fast, and fast enough to leave time for heats.
    predictions = [Prediction(one, 2.0, 1e4) for one in every]
    found = runner.tried(predictions, iter([9.0] * 3 + [0.1] * 9).__next__)
    assert [one.prediction.decoder for one in found].count(AUTOREGRESSIVE) == 1
    assert found[0].prediction.decoder == AUTOREGRESSIVE
    assert len({one.prediction.decoder for one in found}) == len(every)
    assert [one.is_final for one in found] == [True] * 5 + [False] * (len(every) - 5)
    assert all(one.num_mismatches == 0 for one in found)
    assert sum(one.prediction.decoder in fast for one in found[1:5]) >= 3
    assert best_of(found).prediction.decoder in fast
    behind = [one._replace(times_ar=9.0) if not one.is_final else one for one in found]
    assert best_of(behind).is_final
    # Without time for a second heat, who was not left behind by the first is ranked by it ...
    found = runner.tried(predictions, iter([9.0] + [0.1] * 9).__next__)
    assert len({one.prediction.decoder for one in found}) == len(every)
    assert sum(one.is_final for one in found) == 5
    # ... and without time for any, the four that are predicted to be the fastest are tried.
    better = [one._replace(tokens_per_second=2e4) for one in predictions[-4:]]
    found = runner.tried([*better, *predictions[:-4]], iter([0.1] * 9).__next__)
    assert [one.prediction for one in found] == [predictions[0], *better]
    # Where even that is too long, the best of them runs beside AR.
    found = runner.tried([*better, *predictions[:-4]], iter([0.0] * 9).__next__)
    assert [one.prediction for one in found] == [predictions[0], better[0]]


class Slow:
    """A machine on which a forward takes a second, and a hundredth for every token."""

    def __init__(self, base=1.0, per_token=0.01):
        self.base, self.per_token = base, per_token

    def seconds(self, shape, num_outputs=None):
        return self.base + self.per_token * shape.num_rows * shape.width


@pytest.mark.parametrize("seconds", [20, 100, 600, 10_000, 10**6])
@pytest.mark.parametrize("per_token", [1e-5, 1e-3, 1e-1])
def test_what_is_planned_fits_into_its_time_and_the_rest_is_named(seconds, per_token):
    costs = Costs(Slow(0.05, per_token), 80, 64)
    rows = [1, 4, 16]
    plan = planned(costs, seconds, rows, 64)
    assert plan.rows == rows[: len(plan.rows)]
    least = plan.rows == [1] and plan.widest == 4 and plan.num_contexts == 1 and plan.is_quick
    runs = 3 if plan.is_quick else 9
    shapes = [(n, w) for n in plan.rows for w in (*sizes(plan.widest), 80)] * plan.num_contexts
    slow = runs * sum(0.05 + per_token * n * w for n, w in shapes)
    assert slow <= 0.25 * seconds or least
    assert costs.reading(plan.read_rows, plan.widest) <= 0.2 * seconds or least
    missing = left_out(plan, rows, 64)
    assert bool(missing) == (plan != Plan(rows, 64, 3, plan.is_quick, plan.read_rows))
    if seconds == 10**6:
        assert missing == []
    if seconds == 20 and per_token == 1e-1:
        assert missing == [
            "4, 16 rows",
            "drafts of more than 4 tokens",
            "forwards behind short and long texts",
        ]


def test_a_trial_has_the_tokens_that_fit():
    assert trial_tokens(1.0, 0.1, 80.0, 256) == 90  # eight decodes of a second and 90 steps
    assert trial_tokens(1.0, 0.1, 80.0, 40) == 40
    assert trial_tokens(9.0, 0.1, 8.0, 256) == 8
    assert trial_tokens(9.0, 0.1, 8.0, 5) == 5


def test_one_wide_decode_predicts_all_other_decoders():
    """The claim the tuner rests on, on the bundled model: within 20 % here, on few prompts."""
    model = load_model("tiny-forced", probed=False)
    prompts = [model.tokenizer.encode(p.prompt) for p in held_out("all", 10, 3)]
    wide = DecoderConfig(block_size=32, pool_size=0)
    forwards, answers = {i: [] for i in range(10)}, {}
    for event in decode(
        model,
        [Request(i, ids, 80) for i, ids in enumerate(prompts)],
        lambda request: make_strategy(wide, model.vocab_tokens, request.index),
        batch_size=10,
        max_tokens=300,
    ):
        if isinstance(event, Finished):
            answers[event.request] = event.answer_ids
        else:
            forwards[event.request].append(event)
    imitation = imitate((forwards[i], answers[i]) for i in range(10))
    known = [Text(prompts[i], answers[i]) for i in range(10)]
    for settings in (
        {"block_size": 3, "pool_size": 0},
        {"block_size": 12, "pool_size": 4},
        {"strategy": "jacobi", "block_size": 8, "pool_size": 0},
        {"strategy": "multiblock", "block_size": 8, "pool_size": 0},
    ):
        decoder = DecoderConfig(**settings)
        steps = predict_steps(imitation, known * 3, decoder, vocab_tokens=2000, most_tokens=80)
        real = decode_all(model, prompts, decoder, max_new_tokens=80, batch_size=10)
        assert real.tokens_per_forward > 1.5
        assert tokens_per_forward(steps) == pytest.approx(real.tokens_per_forward, rel=0.2)
    # Prompt lookup looks at the text alone, so nothing is left to chance.
    lookup = DecoderConfig(strategy="prompt-lookup", block_size=11)
    steps = predict_steps(imitation, known, lookup, vocab_tokens=2000, most_tokens=80)
    real = decode_all(model, prompts, lookup, max_new_tokens=80, batch_size=10)
    assert [len(request) for request in steps] == real.num_forwards


class Small(Clock):
    """A machine whose memory ends at 8 tokens."""

    def seconds(self, shape, num_outputs=None):
        if shape.num_rows * shape.width > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return super().seconds(shape, num_outputs)


def test_shapes_beyond_memory_are_left_out_with_one_line(caplog):
    clock = Small(toy_model("qwen2"), num_rows=2, max_tokens=40)
    shapes = [Shape(n, c, w) for n in (1, 2) for c in (4, 8) for w in sizes(16)]
    with caplog.at_level(logging.WARNING):
        curve = measure_curve(clock, shapes, [Shape(1, 0, 4)], seconds=0.1)
    assert curve.widest(1) == 8
    assert curve.widest(2) == 4
    assert len(caplog.records) == 2  # one for each number of rows
    assert "out of memory" in caplog.text


@pytest.fixture(scope="module")
def tuning(tmp_path_factory):
    """A toy model that was tuned, and its folder."""
    path = save_toy(tmp_path_factory.mktemp("tuned"), max_position_embeddings=96)
    command = ["tune", "--model", str(path), "--prompts", "self:3", "--batch-size", "2"]
    command += ["--widest", "8", "--max-new-tokens", "12", "--seconds", "2"]
    command += ["--self-prompt-tokens", "6"]
    assert main(command) == 0
    return path


def test_tune_writes_what_it_found_beside_the_weights_with_a_page(tuning):
    found = json.loads((tuning / "tuning.json").read_text())
    assert set(found["chosen"]) == {"1", "2"}
    for chosen in found["chosen"].values():
        tried = chosen["tried"]
        assert tried[0]["decoder"]["strategy"] == "autoregressive"
        faster = [t["times_ar"] for t in tried if t["is_final"] and t["times_ar_low"] > 1]
        assert chosen["times_ar"] == max(faster, default=1)
        assert tried[0]["times_ar"] == 1
        assert all(t["num_mismatches"] == 0 for t in tried)
    assert not list(tuning.glob(".*tmp"))
    page = (tuning / "tuning.html").read_text()
    assert "Content-Security-Policy" in page
    assert "<script" not in page
    assert page.count("<svg") == 5
    assert "{{" not in page


def test_a_tuning_is_read_again_and_fits_only_what_it_was_made_for(tuning, caplog):
    model = load_model(str(tuning))
    found = read_tuning(default_place(str(tuning)))
    assert found.misfit(model) == ""
    assert model.tuning == found
    chosen = json.loads(found.path.read_text())["chosen"]
    assert found.settings(1) == chosen["1"]["decoder"]
    assert found.settings(50) == chosen["2"]["decoder"]
    for name in machine_of(model):
        other = found._replace(machine=found.machine | {name: "other"})
        assert other.misfit(model).startswith(f"{name} was 'other'")
    with caplog.at_level(logging.INFO):
        assert load_model(str(tuning), dtype="bfloat16", probed=False).tuning is None
    assert caplog.text.count("is not used") == 1
    assert "dtype was 'float32', now it is 'bfloat16'; run `jacobi tune` again" in caplog.text


def rewritten(tuning: Path, tmp_path, **machine):
    """A copy of a tuning with another machine, and a decoder of its own."""
    record = json.loads((tuning / "tuning.json").read_text())
    record["machine"] |= machine
    decoder = DecoderConfig(strategy="multiblock", block_size=3, max_blocks=3, pool_size=1)
    record["chosen"] = {"1": {"decoder": asdict(decoder)}}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(record))
    return path, decoder


def test_settings_that_are_given_go_before_tuned_ones(tuning, tmp_path):
    path, decoder = rewritten(tuning, tmp_path)
    model = load_model(str(tuning))
    of = {"model": str(tuning), "tuning": str(path)}
    assert tuned(EvaluateConfig(**of), model).decoder == decoder
    for given in ({"block_size": 16}, {"pool_size": 4, "max_blocks": 2}):
        found = tuned(DecodeConfig(prompt="w5", **of, **given), model).decoder
        assert found == replace(decoder, **given)
    # Of another strategy nothing is known.
    window = DecodeConfig(prompt="w5", strategy="window", **of)
    assert tuned(window, model).decoder == DecoderConfig()
    ignored = DecodeConfig(prompt="w5", model=str(tuning), tuning="none")
    assert tuned(ignored, model) == ignored
    ar = {"strategy": "autoregressive", "block_size": 16}
    assert fill_in({"block_size": 8}, ar) == {"block_size": 8}
    assert fill_in({}, ar) == ar


def test_a_tuning_changes_speed_and_never_an_answer(tuning, tmp_path, capsys):
    path, _ = rewritten(tuning, tmp_path)
    prompt = "w5 w9 w11 w6"

    def decoded(*more):
        capsys.readouterr()
        command = ["decode", "--model", str(tuning), "--prompt", prompt, "--json", *more]
        assert main([*command, "--max-new-tokens", "30"]) == 0
        return json.loads(capsys.readouterr().out)

    plain, other = decoded("--tuning", "none"), decoded("--tuning", str(path))
    assert plain["ids"] == other["ids"] == decoded()["ids"]
    model = load_model(str(tuning))
    found = answer(model, prompt, max_new_tokens=30)
    assert found.ids == plain["ids"]
    assert (
        found.forwards[1].draft
        == answer(model, prompt, max_new_tokens=30, tuned=False, **model.tuning.settings())
        .forwards[1]
        .draft
    )
    untuned = answer(model, prompt, max_new_tokens=30, tuned=False)
    assert untuned.forwards[0].num_proposed >= 15  # the default's


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"device": "cuda, NVIDIA H200"}, "device was 'cuda, NVIDIA H200'"),
        ({"weights": "0123456789abcdef"}, "weights was"),
        ({"torch": "1.0"}, "torch was '1.0'"),
        ({"threads": 64}, "threads was 64, now it is 1"),
    ],
)
def test_a_tuning_of_something_else_is_refused_where_it_is_named(
    tuning, tmp_path, refused, machine, message
):
    path, _ = rewritten(tuning, tmp_path, **machine)
    of = ("decode", "--model", tuning, "--prompt", "w5", "--tuning")
    assert message in refused(*of, path)
    assert "no such file" in refused(*of, tmp_path / "none.json").lower()
    path.write_text("[]")
    assert "not what `jacobi tune` writes" in refused(*of, path)


def test_bad_input_is_one_line(tuning, tmp_path, refused):
    of = ("tune", "--model", tuning)
    (tmp_path / "empty.jsonl").write_text("")
    assert "no prompts found" in refused(*of, "--prompts", tmp_path / "empty.jsonl")
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "w5 " * 200}))
    assert "has 200 tokens" in refused(*of, "--prompts", tmp_path / "long.jsonl")
    assert "self:N" in refused(*of, "--prompts", "self:many")
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in refused(*of, "--out", tmp_path / "file" / "t.json")
    (tmp_path / "folder.json").mkdir()
    assert "is a folder" in refused(*of, "--out", tmp_path / "folder.json")
    assert "must end in .json" in refused(*of, "--out", tmp_path / "t.html")
    assert "--seconds" in refused(*of, "--seconds", 0)


def test_models_without_a_folder_of_their_own_have_a_place_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "jacobi-forcing" / "tuning"
    assert default_place("tiny-forced") == cache / "tiny-forced.json"
    assert default_place("Qwen/Qwen3-8B") == cache / "Qwen--Qwen3-8B.json"
    assert default_place(str(tmp_path)) == tmp_path / "tuning.json"


def test_generate_takes_up_the_tuning_beside_the_weights(tuning, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tuning, folder)
    path, _ = rewritten(tuning, tmp_path)
    record = json.loads(path.read_text())
    decoders = {1: {"strategy": "autoregressive"}, 2: {"strategy": "window", "block_size": 9}}
    record["chosen"] = {rows: {"decoder": decoder} for rows, decoder in decoders.items()}
    (folder / "tuning.json").write_text(json.dumps(record))
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 9, 5, 9, 5]])
    options = {"do_sample": False, "max_new_tokens": 12, "custom_generate": generate}
    network.generate(ids, **options)  # the first call probes the network, with forwards of its own
    widths = []
    network.register_forward_pre_hook(
        lambda _, args, inputs: widths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )

    def decoded(rows, **settings):
        widths.clear()
        return network.generate(ids.repeat(rows, 1), **options, **settings)[0].tolist(), widths[0]

    right, width = decoded(1)
    assert width == 5  # the prompt, without guesses
    assert decoded(2) == (right, 5 + 8)
    assert decoded(1, strategy="window", block_size=4) == (right, 5 + 3)
    assert decoded(2, strategy="autoregressive") == (right, 5)
