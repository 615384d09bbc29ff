"""Several processes train as one does: here two on the CPU, talking through gloo."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import small_run, train_config
from transformers import AutoModelForCausalLM

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.training.processes import check_processes

TESTS = Path(__file__).parent
SETTINGS = {"max_steps": 6, "batch_size": 4, "eval_steps": 3, "save_steps": 3, "threads": 1}
ONLINE = {"states": "online", "mask": "clean-context"}


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def environment():
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | own | {"PYTHONFAULTHANDLER": "1"}  # where a process crashes, say in what


def torchrun(*command):
    """Start two processes; returns what they printed."""
    result = subprocess.run(
        [*TORCHRUN, *map(str, command)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ("sharded", "more"),
    [
        (False, {}),
        (False, ONLINE),
        (True, {"gradient_accumulation": 2}),
        (True, {"lora_rank": 2, "ar_teacher": "frozen"}),
    ],
    ids=["replicated", "replicated, online", "sharded", "adapters beside shards"],
)
def test_two_processes_train_what_one_does_and_save_it_whole(toy, packed, tmp_path, sharded, more):
    settings = SETTINGS | {"learning_rate": 1e-3, "eval_prompts": "packed:2"} | more
    if "lora_rank" in more:
        pytest.importorskip("peft")
    small_run(toy, packed, tmp_path / "one", **settings)
    flags = [x for name, v in settings.items() for x in (f"--{name.replace('_', '-')}", v)]
    where = ["--model", toy, "--packed", packed, "--out", tmp_path / "two"]
    start = [TESTS / "sharded_training.py"] if sharded else ["-m", "jacobi_forcing"]
    shards = ["--fsdp", "--keep-checkpoints"] if sharded else []
    command = [*start, "train", *where, *flags, *shards]
    printed = torchrun(*command)
    assert printed.count("before training") == 1
    one, two = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("one", "two"))
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert two["steps"] == 6
    names = ("ar_loss", "consistency_loss", "agreement", "loss", "grad_norm", "eval_nll")
    for ours, theirs in zip(two["log"], one["log"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in set(names) & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=2e-4, abs=2e-5), name
    assert sum("eval_nll" in line for line in two["log"]) == 2
    assert two["best_checkpoint_step"] == one["best_checkpoint_step"]
    weights = "adapter_model.safetensors" if "lora_rank" in more else "model.safetensors"
    found = load_file(tmp_path / "two" / weights)
    before = load_file(toy / "model.safetensors")
    for name, expected in load_file(tmp_path / "one" / weights).items():
        assert torch.allclose(found[name], expected, atol=1e-4), name
        if "lora_rank" in more:  # which begin with B = 0
            assert "lora_B" not in name or found[name].abs().max() > 1e-4, name
        else:
            assert (found[name] - before[name]).abs().max() > 1e-3, name
    AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    if sharded:  # stopped behind a checkpoint, it goes on from there
        (tmp_path / "two" / "run.json").unlink()
        (tmp_path / "two" / weights).unlink()
        shutil.rmtree(tmp_path / "two" / "steps" / "checkpoint-6")
        torchrun(*command)
        again = load_file(tmp_path / "two" / weights)
        assert all(torch.equal(again[name], found[name]) for name in found)


def test_a_sharded_network_has_the_gradients_of_a_whole_one(tmp_path):
    torchrun(TESTS / "sharded_step.py", tmp_path)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for result in results:
        assert result["sharded"]
        assert result["gradient_error"] < 1e-5
        assert "gradient is not finite" in result["stopped"]  # in both, though one has seen it
    assert results[0]["stopped"] == results[1]["stopped"]
    assert results[0]["gathered"]


@pytest.mark.parametrize(
    ("settings", "count", "on_cpu", "message"),
    [
        ({"batch_size": 6}, 4, True, "--batch-size is 6, which 4 processes.* multiple of 4"),
        ({"device": "cuda:1"}, 2, False, "--device is 'cuda:1'.* 2 processes"),
        ({"fsdp": True}, 1, False, "--fsdp .* there is one.* torchrun"),
        ({"fsdp": True}, 2, True, "--fsdp needs GPUs"),
    ],
)
def test_settings_that_do_not_suit_the_processes_are_refused(settings, count, on_cpu, message):
    with pytest.raises(ConfigError, match=message):
        check_processes(train_config("-", "-", **settings), count, on_cpu=on_cpu)


def test_accelerates_own_wish_for_shards_is_not_passed_over_on_a_cpu(monkeypatch):
    config = train_config("-", "-")
    check_processes(config, 2, on_cpu=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="accelerate's configuration"):
        check_processes(config, 2, on_cpu=True)


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True], ids=["to torchrun", "Ctrl-C, to all of them"])
def test_processes_that_are_told_to_stop_write_a_checkpoint_and_go_on_from_it(
    toy, packed, tmp_path, to_all
):
    settings = {"max_steps": 400, "batch_size": 4, "threads": 1, "eval_prompts": "packed:2"}
    settings |= {"learning_rate": 1e-4}
    flags = [x for name, v in settings.items() for x in (f"--{name.replace('_', '-')}", str(v))]
    where = ["--model", str(toy), "--packed", str(packed), "--out", str(tmp_path / "two")]
    command = [*TORCHRUN, "-m", "jacobi_forcing", "train", *where, *flags]
    options = {"stderr": subprocess.STDOUT, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment(), start_new_session=True, **options)
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("step "):
            break
    send = os.killpg if to_all else os.kill
    send(process.pid, signal.SIGINT if to_all else signal.SIGTERM)
    said += process.stdout.readlines()
    assert process.wait() != 0
    [stopped] = [line for line in said if line.startswith("jacobi train: stopped by ")]
    [checkpoint] = (tmp_path / "two" / "steps").iterdir()
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 0 < step < 400
    assert f"Step {step} of 400 is finished" in stopped
    assert "Continue with: torchrun --nproc-per-node 2 -m jacobi_forcing train" in stopped
    printed = torchrun(*command[len(TORCHRUN) :])
    assert f"train: {step}/400 steps" in printed
    small_run(toy, packed, tmp_path / "one", **settings, save_steps=0)
    found, whole = (load_file(tmp_path / n / "model.safetensors") for n in ("two", "one"))
    assert all(torch.allclose(found[name], whole[name], atol=1e-3) for name in whole)
    start = load_file(toy / "model.safetensors")
    assert any((whole[name] - start[name]).abs().max() > 1e-3 for name in whole)
