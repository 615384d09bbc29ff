"""The plugin in vLLM itself, against vLLM's own AR and our decoder; each engine is a process.

vLLM wants its own environment (docs/serving.md, vLLM; for `evaluate` with what this package needs,
docs/evaluation.md, Other engines). Name its Python:

    JACOBI_VLLM_PYTHON=.venv-vllm/bin/python pytest tests/test_vllm.py
"""

import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from jacobi_forcing import problems
from jacobi_forcing.cli import main
from jacobi_forcing.config import CompareConfig, DecoderConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.models import load_model
from jacobi_forcing.models.bundled import BUNDLED
from jacobi_forcing.stages import compare

PYTHON = os.environ.get("JACOBI_VLLM_PYTHON", "")
CASE = Path(__file__).parent / "vllm_case.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs JACOBI_VLLM_PYTHON, a Python that has vLLM"),
]
WIDTH = 15


@cache
def model():
    return load_model("tiny-forced")


def prompts_of(num):
    return [model().tokenizer.encode(p.prompt) for p in problems.held_out("math", num, 1)]


def run(tmp_path, prompts, width, environment=None, check=True, **case):
    """Run one engine; what it found, or its error."""
    file = tmp_path / f"case-{width}.json"
    file.write_text(
        json.dumps(
            {"model": str(BUNDLED["tiny-forced"]), "prompts": prompts, "width": width} | case
        )
    )
    found = subprocess.run(
        [PYTHON, str(CASE), str(file)],
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
    )
    if not check:
        return found
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


CASES = {
    "24 requests on 8 slots": ({"max_num_seqs": 8}, {"max_tokens": 60}, 24),
    "prompts read in chunks": (
        {"max_num_batched_tokens": 64, "enable_chunked_prefill": True},
        {"max_tokens": 60},
        6,
    ),
    "stop tokens": ({}, {"stop_token_ids": [13, 17, 264]}, 6),
    "logprobs": ({}, {"logprobs": 2, "prompt_logprobs": 1, "max_tokens": 60}, 4),
    "repetition penalty": ({}, {"repetition_penalty": 1.3, "max_tokens": 60}, 4),
    "structured output": ({}, {"regex": "[a-c]{4,30}", "max_tokens": 40}, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_vllms_own_ar(tmp_path, name):
    engine, sampling, num = CASES[name]
    prompts = prompts_of(num)
    right, found = (
        run(tmp_path, prompts, width, engine=engine, sampling=sampling) for width in (0, WIDTH)
    )
    assert found["ids"] == right["ids"]
    assert found["reasons"] == right["reasons"]
    assert found["steps"] < right["steps"]


@pytest.mark.parametrize("worker", ["", "JacobiCPUWorker"])
def test_steps_are_the_forwards_of_our_window(tmp_path, worker):
    """One request at a time, so that a step is a forward of that request."""
    prompts = prompts_of(8)
    engine, environment = {"max_num_seqs": 1}, {}
    if worker:
        engine["worker_cls"] = f"jacobi_forcing.integrations.vllm.workers.{worker}"
        environment["VLLM_PLUGINS"] = "none"
    sampling = {"max_tokens": 192}
    found = run(tmp_path, prompts, WIDTH, environment, engine=engine, sampling=sampling)
    window = DecoderConfig(strategy="window", block_size=WIDTH + 1, pool_size=0)
    ours = decode_all(model(), prompts, window, max_new_tokens=192)
    assert found["ids"] == ours.answers
    assert found["steps"] <= 1.05 * sum(ours.num_forwards)
    # Guesses behind an answer's end are right, too, and counted.
    assert found["steps"] + found["accepted"] >= ours.num_tokens


def test_a_model_whose_guesses_are_rarely_right(tmp_path):
    """tiny-base. (TinyStories 260K has heads of 8, which vLLM's CPU attention does not take.)"""
    prompts, folder = prompts_of(8), str(BUNDLED["tiny-base"])
    right, found = (run(tmp_path, prompts, width, model=folder) for width in (0, WIDTH))
    assert found["ids"] == right["ids"]


def test_without_the_hook_it_does_not_start(tmp_path):
    found = run(tmp_path, prompts_of(1), WIDTH, {"VLLM_PLUGINS": "none"}, check=False)
    assert found.returncode != 0
    assert "Jacobi decoding is not active" in found.stderr


def test_sampling_at_a_low_temperature_is_nearly_greedy(tmp_path):
    """vLLM 0.32 on CPUs gives wrong text here with any drafts; `cpu_mending` says why."""
    sampling = {"temperature": 0.01, "top_k": 5, "seed": 3, "max_tokens": 60}
    prompts = prompts_of(4)
    right = run(tmp_path, prompts, 0, sampling={"max_tokens": 60})
    found = run(tmp_path, prompts, WIDTH, sampling=sampling)
    assert sum(a == b for a, b in zip(found["ids"], right["ids"], strict=True)) >= 3


def test_evaluate_measures_it_beside_ours(tmp_path):
    """As a user does: both engines of vLLM in one process, compiled as they come."""
    asked = ["--model", "tiny-forced", "--problems", "bundled", "--limit", "6"]
    asked += ["--max-new-tokens", "96"]
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    evaluate = [PYTHON, "-m", "jacobi_forcing", "evaluate", *asked, "--engine", "vllm"]
    done = subprocess.run([*evaluate, "--out", str(theirs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(["evaluate", *asked, "--pool-size", "0", "--out", str(ours)]) == 0
    lines = compare.run(CompareConfig(reports=(str(ours), str(theirs))))
    assert [line.engine[:4] for line in lines] == ["", "", "vllm", "vllm"]
    assert len({line.figures["ids_digest"] for line in lines}) == 1
    ar, window, their_ar, their_window = (line.figures for line in lines)
    assert their_ar["num_forwards"] == ar["num_forwards"] == ar["num_tokens"]
    assert their_window["num_forwards"] <= 1.1 * window["num_forwards"] < 0.5 * ar["num_forwards"]
    again = subprocess.run([*evaluate, "--out", str(theirs)], capture_output=True, text=True)
    assert again.returncode == 0
    assert "Loading safetensors" not in again.stderr  # nothing is left, so no engine is started


def test_the_server_streams_several_tokens_at_a_time(tmp_path):
    httpx = pytest.importorskip("httpx")
    speculative = {
        "method": "custom_class",
        "model": "jacobi_forcing.integrations.vllm.proposer.JacobiProposer",
        "num_speculative_tokens": WIDTH,
    }
    port = 20000 + os.getpid() % 20000
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
    command += ["--model", str(BUNDLED["tiny-forced"]), "--served-model-name", "tiny"]
    command += ["--max-model-len", "512", "--enforce-eager", "--dtype", "float32"]
    command += ["--speculative-config", json.dumps(speculative)]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1"}
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _until_up(httpx, url, server)
        prompt = prompts_of(1)[0]
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 80, "temperature": 0}
        with httpx.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}) as reply:
            lines = [line for line in reply.iter_lines() if line.startswith("data: {")]
        text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines)
        right = decode_all(
            model(), [prompt], DecoderConfig(strategy="autoregressive"), max_new_tokens=80
        )
        assert text == model().tokenizer.decode(right.answers[0], skip_special_tokens=True)
        assert len(lines) < 60
        assert "vllm:spec_decode_num_accepted_tokens" in httpx.get(f"{url}/metrics").text
    finally:
        server.terminate()
        server.wait(60)


def _until_up(httpx, url, server):
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    sys.exit("the server did not start")
