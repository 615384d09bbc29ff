"""What the stages write, read by transformers 4 in an environment of its own.

The environment is made once, in the user's cache, from this one's PyTorch and PEFT and from
transformers 4.57 of the package index. Or name the Python of one that has all three:

    JACOBI_TRANSFORMERS4_PYTHON=.venv-4/bin/python pytest tests/test_transformers4.py
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from packs import pack_config, random_trajectories, write_trajectories
from test_saving import SPELLED
from toys import EOS, save_toy, toy_tokenizer
from training import small_run
from transformers4_case import TEXT

from jacobi_forcing.cli import main
from jacobi_forcing.models import load_model
from jacobi_forcing.models.bundled import BUNDLED
from jacobi_forcing.stages import pack

pytestmark = pytest.mark.slow

CASE = Path(__file__).parent / "transformers4_case.py"
# Read here: a fixture of the whole session names another one.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jacobi-forcing"
SETTINGS = dict(SPELLED)
SETTINGS |= {
    "gpt2": ({"tie_word_embeddings": True}, {}),
    "mistral": ({"sliding_window": None, "rope_parameters": {"rope_theta": 1e6}}, {}),
    "gemma2": ({"rope_parameters": {"rope_theta": 2e4}, "tie_word_embeddings": True}, {}),
    "mixtral": ({"rope_parameters": {"rope_theta": 2e4}}, {}),
    "qwen3_moe": ({"rope_parameters": {"rope_theta": 2e4}}, {}),
}


@pytest.fixture(scope="module")
def python():
    """A Python that has transformers 4."""
    named = os.environ.get("JACOBI_TRANSFORMERS4_PYTHON")
    if named:
        return named
    place = CACHE / f"transformers4-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]}"
    whole = place / "whole"
    if not whole.exists():
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", place], check=True, capture_output=True
            )
            # What it has none of itself comes from this environment.
            library = next(place.glob("lib/python*/site-packages"))
            (library / "this.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
            install = [place / "bin/python", "-m", "pip", "install", "-q", "transformers==4.57.*"]
            subprocess.run(install, check=True, capture_output=True, timeout=900)
        except (OSError, subprocess.SubprocessError) as error:
            reason = (getattr(error, "stderr", None) or str(error).encode()).decode().strip()
            pytest.skip(f"cannot install transformers 4: {reason.splitlines()[-1:]}")
        whole.touch()
    return place / "bin/python"


@pytest.fixture(scope="module")
def read(python, tmp_path_factory):
    """What version 4 finds in folders."""

    def run(folders):
        out = tmp_path_factory.mktemp("read") / "found.json"
        # As strict as can be: it may neither warn of a setting nor look for anything elsewhere.
        offline = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        ran = subprocess.run(
            [python, CASE, out, *map(str, folders)],
            env=offline | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr[-4000:]
        for sign in ("rope", "newly initialized", "were not used", "does not exist"):
            assert sign not in ran.stderr, ran.stderr[-4000:]
        return json.loads(out.read_text(encoding="utf-8"))

    return run


@torch.no_grad()
def same(folder, found, atol):
    """Compare version 4's reading of a folder with ours; return how far its logits spread."""
    model = load_model(str(folder), device="cpu", probed=False)
    ids = model.tokenizer(TEXT)["input_ids"]
    assert found["ids"] == ids
    assert found["text"] == model.tokenizer.decode(ids, skip_special_tokens=True)
    logits = model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    theirs = torch.tensor(found["logits"])
    torch.testing.assert_close(theirs, logits, atol=atol, rtol=1e-4)
    return theirs.std()


def average(start, other, out):
    models = f"{start},{other}"
    assert main(["average", "--models", models, "--weights", "0.5,0.5", "--out", str(out)]) == 0
    return out


def test_averages_of_many_families(read, tmp_path):
    folders = {}
    for family, (settings, _) in SETTINGS.items():
        pair = [save_toy(tmp_path / f"{family}-{k}", family, k, **settings) for k in (0, 1)]
        folders[family] = average(*pair, tmp_path / family)
    # One without the older spelling, to see that these logits tell.
    blind = shutil.copytree(folders["qwen3"], tmp_path / "blind")
    config = json.loads((blind / "config.json").read_text())
    del config["rope_theta"]
    (blind / "config.json").write_text(json.dumps(config))
    found = read([*folders.values(), blind])
    misread, right = (torch.tensor(found[str(f)]["logits"]) for f in (blind, folders["qwen3"]))
    assert (misread - right).abs().max() > 0.02  # twenty times the tolerance
    for folder in folders.values():
        assert same(folder, found[str(folder)], atol=1e-3) > 0.1
        assert found[str(folder)]["has_cache"]
        assert found[str(folder)]["eos"] == EOS
    assert len(folders) > 10


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "gpt_neox"])
def test_a_trained_one_its_checkpoints_and_adapters(family, read, tmp_path):
    settings = SETTINGS[family][0]
    start = save_toy(tmp_path / "start", family, **settings)
    tokens = {"extra_special_tokens": ["w9"], "chat_template": "<{{ messages[0].content }}>"}
    toy_tokenizer(**tokens).save_pretrained(start)
    source = write_trajectories(tmp_path / "collected", random_trajectories(2, 8, 4))
    packed = pack.run(pack_config(source, tmp_path / "packed", window=3))
    run = {"max_steps": 2, "save_steps": 1, "learning_rate": 1e-2, "keep_checkpoints": True}
    trained = small_run(start, packed, tmp_path / "trained", **run)
    # Their base is one of ours: what others write for version 5 alone is theirs.
    adapters = small_run(trained, packed, tmp_path / "adapters", lora_rank=2, **run)
    merged = small_run(
        trained, packed, tmp_path / "merged", lora_rank=2, merge_adapters=True, **run
    )
    folders = [trained, adapters, merged]
    found = read(folders)
    for folder in folders:
        assert same(folder, found[str(folder)], atol=1e-3) > 0.1
        assert found[str(folder)]["chat"] == f"<{TEXT}>"
        assert "w9" not in found[str(folder)]["text"]
    logits = [torch.tensor(found[str(folder)]["logits"]) for folder in folders]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    torch.testing.assert_close(logits[1], logits[2], atol=1e-3, rtol=1e-4)


def test_the_bundled_pair(read):
    found = read(BUNDLED.values())
    for folder in BUNDLED.values():
        assert same(folder, found[str(folder)], atol=1e-3) > 0.1
        assert found[str(folder)]["has_cache"]


def test_the_real_model_averaged_trained_and_adapted(read, real_model, tmp_path):
    """It says its base of positions, 100,000, as version 5 does, and has a chat template."""
    asked = [[{"role": "user", "content": f"What is {n} + 34?"}] for n in (12, 56)]
    lines = [json.dumps({"messages": messages}) for messages in asked]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    collect = ["collect", "--model", real_model, "--prompts", tmp_path / "prompts.jsonl"]
    collect += ["--max-new-tokens", "8", "--block-size", "4", "--out", tmp_path / "collected"]
    assert main([*map(str, collect)]) == 0
    packing = ["pack", "--trajectories", tmp_path / "collected", "--out", tmp_path / "packed"]
    assert main([*map(str, packing), "--no-solved-only"]) == 0
    run = {"max_steps": 1, "save_steps": 1, "batch_size": 1, "eval_prompts": "packed:1"}
    trained = small_run(real_model, tmp_path / "packed", tmp_path / "trained", **run)
    adapters = small_run(trained, tmp_path / "packed", tmp_path / "adapters", lora_rank=2, **run)
    mean = average(real_model, trained, tmp_path / "mean")
    folders = [trained, mean, adapters]
    found = read(folders)
    tokenizer = load_model(str(real_model), probed=False).tokenizer
    messages = [{"role": "user", "content": TEXT}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for folder in folders:
        assert same(folder, found[str(folder)], atol=1e-2) > 0.1
        assert found[str(folder)]["chat"] == prompt
        assert found[str(folder)]["has_cache"]
