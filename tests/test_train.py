"""The stage `train`: exact resuming, what is saved, what is kept for its decoder test."""

import json
import signal
from types import SimpleNamespace

import pytest
import torch
from packs import joined, make_document, random_packed
from safetensors.torch import load_file
from toys import save_toy, toy_model
from training import BLOCK, parameters, small_run, train_config

from jacobi_forcing.data.packed import read_packed
from jacobi_forcing.data.trajectories import read_manifest
from jacobi_forcing.decoding.measure import Decoded
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import load_model
from jacobi_forcing.stages import judge, train
from jacobi_forcing.stop import Stopped
from jacobi_forcing.training import arguments, memory
from jacobi_forcing.training.adapters import add_adapters
from jacobi_forcing.training.trainer import JacobiTrainer


@pytest.fixture
def scores(monkeypatch):
    """Replace the decoder test by one that gives these scores in turn."""
    values = []

    def make(*_):
        return lambda network: {
            "score": values.pop(0) if values else 0.0,
            "tokens_per_forward": 1.0,
        }

    monkeypatch.setattr(judge, "_likelihood_test", make)
    return values


def test_a_frozen_model_that_is_named_teaches_and_judges_instead_of_the_start(
    toy, packed, tmp_path, monkeypatch
):
    other = save_toy(tmp_path / "other", seed=5)
    taught_by, judges = [], []
    whole_init, test = JacobiTrainer.__init__, judge._likelihood_test

    def init(self, **options):
        taught_by.append(parameters(options["frozen"]))
        whole_init(self, **options)

    def likelihood_test(config, model, original, *rest):
        judges.append(parameters(original.network))
        return test(config, model, original, *rest)

    monkeypatch.setattr(JacobiTrainer, "__init__", init)
    monkeypatch.setattr(judge, "_likelihood_test", likelihood_test)
    settings = {"ar_teacher": "frozen", "max_steps": 3}
    small_run(toy, packed, tmp_path / "named", frozen_model=str(other), **settings)
    small_run(toy, packed, tmp_path / "start", **settings)
    expected = [parameters(load_model(str(name)).network) for name in (other, toy)]
    for found in (taught_by, judges):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("named", "start")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_frozen_model_that_nothing_asks_for_is_refused():
    settings = {"frozen_model": "somewhere", "eval_prompts": "bundled:4"}
    with pytest.raises(ConfigError, match="no teacher is frozen"):
        train._original(train_config("-", "-", **settings), toy_model())


class KilledError(Exception):
    pass


FLAT = {"score": 0.0, "tokens_per_forward": 1.0}


def killed(*_):
    raise KilledError


@pytest.mark.parametrize(
    ("save_steps", "killed_in"), [(3, 5), (5, 8), (4, 11)], ids=["epoch 1", "its end", "epoch 2"]
)
def test_a_run_that_was_killed_ends_up_with_the_very_weights_of_one_that_was_not(
    toy, packed, tmp_path, scores, monkeypatch, uninterrupted, save_steps, killed_in
):
    steps = []
    whole_step = JacobiTrainer.training_step

    def step(self, *arguments):
        steps.append(self.state.global_step + 1)
        if steps.count(killed_in) == 1 and steps[-1] == killed_in:
            raise KilledError
        return whole_step(self, *arguments)

    monkeypatch.setattr(JacobiTrainer, "training_step", step)
    settings, whole = uninterrupted
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, save_steps=save_steps, **settings)
    assert not (tmp_path / "model.safetensors").exists()
    small_run(toy, packed, tmp_path, save_steps=save_steps, **settings)
    saved = killed_in - 1 - (killed_in - 1) % save_steps
    assert steps == [*range(1, killed_in + 1), *range(saved + 1, 13)]
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in found)


@pytest.fixture(
    scope="module",
    params=[{"states": "recorded"}, {"states": "online", "mask": "clean-context"}],
    ids=["recorded", "online"],
)
def uninterrupted(request, toy, packed, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_likelihood_test", lambda *_: lambda network: FLAT)
        small_run(toy, packed, out, **request.param)
    record = json.loads((out / "run.json").read_text())
    assert record["steps"] == 12
    assert record["num_sequences"] == 24  # 5 steps per epoch
    weights, start = load_file(out / "model.safetensors"), load_file(toy / "model.safetensors")
    assert not any(torch.equal(weights[name], start[name]) for name in weights)
    return request.param, weights


def told_in(monkeypatch, name, step, number):
    """Send a signal during a step, or the decoder test behind it; the steps and tests made."""
    made, whole = [], getattr(JacobiTrainer, name)

    def told(self, *arguments, **options):
        made.append(self.state.global_step)
        if made.count(step) == 1 and made[-1] == step:
            decoder_test = self.decoder_test

            def signalled(network):
                signal.raise_signal(number)
                return decoder_test(network)

            if name == "evaluate":
                self.decoder_test = signalled
            else:
                signal.raise_signal(number)
        return whole(self, *arguments, **options)

    monkeypatch.setattr(JacobiTrainer, name, told)
    return made


@pytest.mark.parametrize(
    ("name", "step", "number", "saved"),
    [
        ("training_step", 0, signal.SIGTERM, 1),
        ("training_step", 6, signal.SIGINT, 7),
        ("training_step", 11, signal.SIGHUP, 12),
        ("evaluate", 4, signal.SIGTERM, 4),
    ],
    ids=["first step", "epoch 2", "last step", "decoder test"],
)
def test_a_run_that_is_told_to_stop_writes_a_checkpoint_and_ends_up_the_same(
    toy, packed, tmp_path, scores, monkeypatch, uninterrupted, capfd, name, step, number, saved
):
    made = told_in(monkeypatch, name, step, number)
    settings, whole = uninterrupted
    more = {"eval_steps": 4} if name == "evaluate" else {"save_steps": 500}
    with pytest.raises(
        Stopped, match=rf"Step {saved} of 12 is finished, and .*checkpoint-{saved} "
    ) as stop:
        small_run(toy, packed, tmp_path, **settings, **more)
    assert stop.value.number == number
    work = f"the test after step {saved}" if name == "evaluate" else f"step {saved}"
    said = f"{signal.Signals(number).name}: {work} is finished first, and a checkpoint written."
    assert said in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (tmp_path / "model.safetensors").exists()
    assert [f.name for f in tmp_path.glob("steps/checkpoint-*")] == [f"checkpoint-{saved}"]
    small_run(toy, packed, tmp_path, **settings, **more)
    if name == "training_step":
        assert made == list(range(12))
        found = load_file(tmp_path / "model.safetensors")
        assert all(torch.equal(found[name], whole[name]) for name in whole)
    else:
        assert made == [4, 8, 12]


def test_a_second_signal_ends_a_run_at_once(toy, packed, tmp_path, scores, monkeypatch):
    steps, whole = [], JacobiTrainer.training_step

    def told_twice(self, *arguments):
        steps.append(self.state.global_step)
        if steps[-1] == 2:
            signal.raise_signal(signal.SIGTERM)  # noted
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it went on")
        return whole(self, *arguments)

    monkeypatch.setattr(JacobiTrainer, "training_step", told_twice)
    with pytest.raises(Stopped, match="Step 2 is finished") as stop:
        small_run(toy, packed, tmp_path, save_steps=2)
    assert stop.value.number == signal.SIGINT
    assert steps == [0, 1, 2]


def test_a_run_stopped_before_its_first_step_says_that_nothing_was_made(
    toy, packed, tmp_path, monkeypatch
):
    def told(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(JacobiTrainer, "measure", told)
    with pytest.raises(Stopped, match="No checkpoint was written yet"):
        small_run(toy, packed, tmp_path)


def test_patience_counts_on_where_a_stopped_run_was(toy, packed, tmp_path, scores, monkeypatch):
    settings = {"eval_steps": 2, "save_steps": 2, "patience": 2}
    told_in(monkeypatch, "training_step", 4, signal.SIGTERM)
    scores += [1.0, 1.5, 1.2]  # before training, at step 2, at step 4
    with pytest.raises(Stopped, match="Step 5 of 12"):
        small_run(toy, packed, tmp_path, **settings)
    scores[:] = [1.0, 1.4, 9.0, 9.0]  # before training, at step 6
    record = json.loads((small_run(toy, packed, tmp_path, **settings) / "run.json").read_text())
    assert record["steps"] == 6
    assert record["best_checkpoint_step"] == 2


def test_a_finished_run_is_left_as_it_is(toy, packed, tmp_path, scores, monkeypatch):
    small_run(toy, packed, tmp_path, max_steps=2)
    before = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir() if f.is_file()}
    monkeypatch.setattr(JacobiTrainer, "train", None)
    assert small_run(toy, packed, tmp_path, max_steps=2) == tmp_path
    after = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir() if f.is_file()}
    assert after == before
    assert {"model.safetensors", "run.json", "tokenizer.json"} <= after.keys()


def test_checkpoints_go_when_a_run_has_finished_and_trackers_files_stay(
    toy, packed, tmp_path, scores, monkeypatch
):
    settings = {"max_steps": 2, "save_steps": 1}
    with monkeypatch.context() as patch:
        patch.setattr(train, "write_json", killed)  # the record says that it has finished
        with pytest.raises(KilledError):
            small_run(toy, packed, tmp_path, **settings)
    (tmp_path / "steps" / "events").write_text("a tracker's")
    assert len(list(tmp_path.glob("steps/checkpoint-*"))) == 2
    small_run(toy, packed, tmp_path, **settings)
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["events"]
    small_run(toy, packed, tmp_path / "alone", **settings)
    assert not (tmp_path / "alone" / "steps").exists()


@pytest.mark.parametrize("more", [{}, {"lora_rank": 4}], ids=["whole", "adapters"])
def test_a_checkpoint_is_as_large_as_estimated(toy, packed, tmp_path, scores, more):
    if more:
        pytest.importorskip("peft")
    settings = {"max_steps": 1, "save_steps": 1, "keep_checkpoints": True} | more
    small_run(toy, packed, tmp_path, **settings)
    folder = tmp_path / "steps" / "checkpoint-1"
    names = ("model.safetensors", "adapter_model.safetensors", "optimizer.pt")
    found = sum((folder / name).stat().st_size for name in names if (folder / name).exists())
    network = load_model(str(toy)).network
    if more:
        network = add_adapters(network, train_config(toy, packed, tmp_path, **more))
    expected = memory.checkpoint_bytes(network)
    assert expected <= found <= 1.1 * expected + 50_000  # names and shapes beside the numbers


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"states": "online", "mask": "clean-context"}])
def test_a_compiled_training_has_the_losses_and_weights_of_an_eager_one(
    toy, packed, tmp_path, scores, more
):
    for name in ("eager", "compiled"):
        settings = {"max_steps": 3, "save_steps": 1, "compile": name == "compiled"} | more
        small_run(toy, packed, tmp_path / name, **settings)
    eager, compiled = (
        json.loads((tmp_path / name / "run.json").read_text())["log"]
        for name in ("eager", "compiled")
    )
    for mine, theirs in zip(compiled, eager, strict=True):
        for loss in {"ar_loss", "consistency_loss", "grad_norm"} & mine.keys():
            assert mine[loss] == pytest.approx(theirs[loss], rel=1e-3), loss
    found, whole = (
        load_file(tmp_path / name / "model.safetensors") for name in ("compiled", "eager")
    )
    assert found.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], atol=2e-3, rtol=1e-3)


def test_a_run_that_was_killed_behind_its_last_step_makes_no_further_one(
    toy, packed, tmp_path, scores, monkeypatch
):
    settings = {"max_steps": 7, "lr_schedule": "constant"}
    small_run(toy, packed, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_model", killed)
        with pytest.raises(KilledError):
            small_run(toy, packed, tmp_path / "killed", **settings)
    small_run(toy, packed, tmp_path / "killed", **settings)
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["steps"] == 7
    found, whole = (load_file(tmp_path / out / "model.safetensors") for out in ("killed", "whole"))
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_other_settings_do_not_continue_a_run_except_how_it_takes_a_nan(
    toy, packed, tmp_path, scores, monkeypatch
):
    monkeypatch.setattr(train, "save_model", killed)
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, max_steps=2)
    # A checkpoint brings its own learning rate, so another one would go unheard.
    with pytest.raises(ConfigError, match="learning_rate"):
        small_run(toy, packed, tmp_path, max_steps=2, learning_rate=1e-4)
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, max_steps=2, nan_gradients="skip")


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 2, "gradient_accumulation": 3},
        {"batch_size": 3, "gradient_accumulation": 2, "gradient_checkpointing": True},
        {"loss_chunk_tokens": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [{}, {"states": "online", "mask": "clean-context"}], ids=str)
def test_what_changes_no_step_may_change_in_a_run_that_continues(
    toy, packed, tmp_path, scores, monkeypatch, settings, more
):
    begun = {"batch_size": 6, "max_steps": 5, "save_steps": 2} | more
    small_run(toy, packed, tmp_path / "whole", **begun)
    step = JacobiTrainer.training_step

    def full(self, *arguments):
        if self.state.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(JacobiTrainer, "training_step", full)
        with pytest.raises(ConfigError, match="out of memory"):
            small_run(toy, packed, tmp_path / "full", **begun)
    small_run(toy, packed, tmp_path / "full", **begun | settings)
    found, whole = (load_file(tmp_path / out / "model.safetensors") for out in ("full", "whole"))
    assert all(torch.allclose(found[name], whole[name], atol=1e-4) for name in whole)
    begun = load_file(toy / "model.safetensors")
    assert any((found[name] - begun[name]).abs().max() > 1e-3 for name in whole)


def test_a_run_does_not_continue_with_larger_steps(toy, packed, tmp_path, scores, monkeypatch):
    monkeypatch.setattr(train, "save_model", killed)
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, max_steps=2)
    with pytest.raises(ConfigError, match="gradient_accumulation = 1, now it is 2"):
        small_run(toy, packed, tmp_path, max_steps=2, gradient_accumulation=2)


def test_a_folder_in_which_another_process_trains_is_left_alone(
    toy, packed, tmp_path, scores, monkeypatch
):
    whole_train, refusals = JacobiTrainer.train, []

    def trained(self, **options):
        with pytest.raises(ConfigError, match=r"another process is at work") as refusal:
            small_run(toy, packed, tmp_path, max_steps=2)
        refusals.append(str(refusal.value))
        return whole_train(self, **options)

    monkeypatch.setattr(JacobiTrainer, "train", trained)
    small_run(toy, packed, tmp_path, max_steps=2)
    assert len(refusals) == 1
    assert str(tmp_path) in refusals[0]
    assert "\n" not in refusals[0]
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("found", "step"),
    [([-3.0, -2.0, -4.0, -2.0], 3), ([-3.0, 2.0, -4.0, 2.0], None)],
    ids=["none kept it", "one kept it"],
)
def test_where_no_checkpoint_keeps_the_limit_a_line_says_so(
    toy, packed, tmp_path, scores, caplog, found, step
):
    scores += [1.0, *(found[1], found[0], found[2]), found[3]]  # before, three times in it, behind
    out = small_run(toy, packed, tmp_path, max_steps=9, eval_steps=3, save_steps=3)
    record = json.loads((out / "run.json").read_text())
    lines = [r.getMessage() for r in caplog.records if "no evaluated checkpoint" in r.getMessage()]
    assert record["keeps_limit"] == (step is None)
    assert record["best_checkpoint_step"] == 3
    assert len(lines) == (step is not None)
    for line in lines:
        assert "kept --max-nll-rise 0.15; that of step 3 of 9 was taken" in line
        assert "\n" not in line


def test_the_best_checkpoint_is_the_one_with_the_highest_score(toy, packed, tmp_path, scores):
    scores += [9.0, 1.0, 3.0, 2.0, 0.5]  # before training, four times in it
    steps = {"eval_steps": 3, "save_steps": 3}
    out = small_run(toy, packed, tmp_path, **steps, keep_checkpoints=True)
    record = json.loads((out / "run.json").read_text())
    assert record["best_checkpoint_step"] == 6
    best = load_file(out / "steps" / "checkpoint-6" / "model.safetensors")
    last = load_file(out / "steps" / "checkpoint-12" / "model.safetensors")
    found = load_file(out / "model.safetensors")
    assert all(torch.equal(found[name], best[name]) for name in best)
    assert not all(torch.equal(found[name], last[name]) for name in last)


def test_a_checkpoint_that_lost_too_much_scores_below_every_one_that_did_not(
    toy, packed, monkeypatch
):
    config = train_config(toy, packed, max_nll_rise=0.1)
    nlls = iter([2.0, 2.19, 2.21, 3.0])
    model = toy_model()
    monkeypatch.setattr(
        judge, "negative_log_likelihood", lambda asked, *_: next(nlls) if asked is model else 0.0
    )
    speeds = iter([1.0, 1.01, 5.0, 9.0])
    decoded = lambda *_: SimpleNamespace(  # noqa: E731
        answers=[[5]], tokens_per_forward=next(speeds), acceptance=lambda place: 0.5
    )
    monkeypatch.setattr(judge, "_decode", decoded)
    test = judge._likelihood_test(config, model, model, [[2]], BLOCK)
    assert [test(model.network)["score"] for _ in range(4)] == [1.0, 1.01, -2.21, -3.0]


def test_prompts_kept_for_evaluation_are_in_no_training_sequence(packed):
    sequences = read_packed(packed, BLOCK)
    manifest = read_manifest(packed, "pack")
    config = train_config("-", packed, eval_prompts="packed:3")
    training, _ = judge.split(config, toy_model(), toy_model(), sequences, manifest)
    held = {s[0].prompt_index for s in sequences} - {s[0].prompt_index for s in training}
    assert len(held) == 3
    assert len(training) == len(sequences) - 2 * 3  # both copies


def test_prompts_kept_for_evaluation_leave_the_sequences_that_they_share():
    sequences = joined(random_packed(0, 12, BLOCK), 5, 1, 4, 2)
    config = train_config("-", "-", eval_prompts="packed:3")
    manifest = {"block_size": BLOCK}
    training, _ = judge.split(config, toy_model(), toy_model(), sequences, manifest)
    assert [len(sequence) for sequence in training] == [5, 1, 3]
    assert [d.prompt_index for sequence in training for d in sequence] == list(range(9))


@pytest.mark.parametrize(
    "eval_prompts", ["packed:0", "packed:", "packed", "packed:-1", "nothing:3"]
)
def test_eval_prompts_that_name_nothing_are_refused(packed, eval_prompts):
    config = train_config("-", packed, eval_prompts=eval_prompts)
    with pytest.raises(ConfigError, match="--eval-prompts"):
        judge.split(
            config, toy_model(), None, read_packed(packed, BLOCK), read_manifest(packed, "pack")
        )


def test_data_of_one_prompt_is_an_error_and_not_an_empty_training_set():
    sequences = [(make_document(4, 1, 3, [5] * 9, [0.5]),)] * 2
    config = train_config("-", "data/packed", eval_prompts="packed:32")
    with pytest.raises(DataError, match="data/packed"):
        judge.split(config, toy_model(), None, sequences, {"num_sequences": 2, "block_size": BLOCK})


@pytest.mark.parametrize("adapters", [{}, {"lora_rank": 2, "merge_adapters": True}])
def test_weights_are_rounded_once_when_they_are_written(toy, packed, tmp_path, scores, adapters):
    if adapters:
        pytest.importorskip("peft")
    for name, dtype in (("whole", ""), ("half", "bfloat16")):
        small_run(toy, packed, tmp_path / name, max_steps=2, save_dtype=dtype, **adapters)
    whole, half = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "half"))
    assert whole.keys() == half.keys()
    assert all(torch.equal(half[name], whole[name].to(torch.bfloat16)) for name in whole)
    assert {one.dtype for one in whole.values()} == {torch.float32}
    found = load_model(str(tmp_path / "half"), dtype="bfloat16", probed=False)
    assert found.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match=r"--save-dtype is bfloat16, but adapters.*--merge"):
        train_config("-", "-", save_dtype="bfloat16", lora_rank=2)


# What stops, watches and explains a run


def test_a_run_stops_when_its_score_has_not_risen_for_some_evaluations(
    toy, packed, tmp_path, scores
):
    scores += [1.0, 1.5, 1.2, 1.4, 9.0, 9.0]  # before training, then every second step
    out = small_run(toy, packed, tmp_path, eval_steps=2, save_steps=2, patience=2)
    record = json.loads((out / "run.json").read_text())
    assert record["steps"] == 6
    assert record["best_checkpoint_step"] == 2


def test_the_decoder_test_says_where_guesses_are_accepted_and_how_far_the_model_moved(
    toy, packed, tmp_path
):
    small_run(toy, packed, tmp_path, max_steps=6, learning_rate=1e-2)
    record = json.loads((tmp_path / "run.json").read_text())
    before, after = record["before"], record["after"]
    assert before["drift"] == 0
    assert after["drift"] > 0.01
    shares = [after[f"accepted_at_{place}"] for place in (1, 2, 4, 8)]
    assert shares == sorted(shares, reverse=True)


def test_acceptance_is_counted_over_forwards():
    found = Decoded([[5] * 6, [5] * 2], [2, 1], [6, 3], [0, 0], [[0, 4], [1]])
    assert [found.acceptance(place) for place in (1, 2, 4, 5)] == [2 / 3, 1 / 3, 1 / 3, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"report_to": "tensorboard,mlflow"}, "--report-to names 'mlflow'; known are"),
        ({"report_to": "wandb"}, "--report-to names wandb, which is not installed"),
        ({"deepspeed": "zero.json"}, "--deepspeed is zero.json, but DeepSpeed is not installed"),
    ],
)
def test_what_is_not_installed_is_refused(settings, message, monkeypatch):
    monkeypatch.setattr(
        arguments, "find_spec", lambda name: None if name in ("wandb", "deepspeed") else True
    )
    with pytest.raises(ConfigError, match=message):
        arguments.check_installed(train_config("-", "-", **settings))


def test_deepspeed_that_leaves_no_whole_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arguments, "find_spec", lambda name: True)
    path = tmp_path / "zero.json"
    config = train_config("-", "-", deepspeed=str(path))
    path.write_text('{"zero_optimization": {"stage": 2}}')
    arguments.check_installed(config)
    path.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(ConfigError, match=r"ZeRO stage 3.*Take stage 2, or --fsdp"):
        arguments.check_installed(config)


def test_tensorboard_gets_both_losses(toy, packed, tmp_path):
    event_files = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    small_run(toy, packed, tmp_path, max_steps=8, report_to="tensorboard")
    (written,) = tmp_path.glob("steps/**/events.out.tfevents.*")
    events = event_files.EventAccumulator(str(written)).Reload()
    logged = json.loads((tmp_path / "run.json").read_text())["log"]
    for name in ("ar_loss", "consistency_loss"):
        expected = [line[name] for line in logged if name in line]
        assert [e.value for e in events.Scalars(f"train/{name}")] == pytest.approx(expected)
        assert len(expected) == 8


def test_out_of_memory_is_one_line_that_says_what_to_lower(toy, packed, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(JacobiTrainer, "training_step", full)
    with pytest.raises(ConfigError, match=r"A step needs about .* GiB: weights .*Lower|Add|Most"):
        small_run(toy, packed, tmp_path)


def test_the_estimate_counts_what_there_is():
    model = toy_model()
    config = train_config("-", "-", batch_size=4, loss_chunk_tokens=0)
    found = memory.estimate(model.network, config, longest=100)
    num = sum(p.numel() for p in model.network.parameters())
    assert (found.weights, found.gradients, found.optimizer) == (4 * num, 4 * num, 8 * num)
    assert found.masks == 4 * 100 * 100 * 4
    assert memory.estimate(model.network, config, 100, 2).masks == found.masks / 2
    cheaper = train_config("-", "-", batch_size=4, gradient_checkpointing=True)
    assert memory.estimate(model.network, cheaper, 100).activations < found.activations


def test_other_errors_are_not_taken_for_too_little_memory():
    config = train_config("-", "-")
    found = memory.estimate(toy_model().network, config, 10)
    with pytest.raises(RuntimeError, match="shapes"), memory.explained(found, config):
        raise RuntimeError("shapes do not fit")
