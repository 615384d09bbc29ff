"""The LM Evaluation Harness with our decoder scores what it scores with transformers' own.

Needs the `lm-eval` extra: pip install -e '.[dev,lm-eval]'; pytest tests/test_lm_eval.py
"""

import json
import subprocess
import sys

import pytest

pytest.importorskip("lm_eval", reason="needs the lm-eval extra")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing
from toys import EOS, PAD, save_toy, toy_tokenizer
from transformers import GenerationConfig

from jacobi_forcing import problems
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.lm_eval import JacobiLM
from jacobi_forcing.models import load_model

TASK = """
task: bundled_math
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 150}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""


@pytest.fixture
def tasks(tmp_path):
    """A folder with a task of bundled problems: is the answer the expected one, to the letter?"""
    model = load_model("tiny-base")
    data = tmp_path / "problems.jsonl"
    lines = []
    for number, problem in enumerate(problems.held_out("math", 8, 0)):
        ids = model.tokenizer(problem.prompt, return_tensors="pt")
        out = model.network.generate(**ids, max_new_tokens=150, do_sample=False)
        text = model.tokenizer.decode(out[0, ids.input_ids.shape[1] :], skip_special_tokens=True)
        right = text if number % 2 else "something else"
        lines.append(json.dumps({"prompt": problem.prompt, "answer": right}))
    data.write_text("\n".join(lines))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "bundled_math.yaml").write_text(TASK.format(data=data))
    return folder


def test_a_task_has_the_score_that_transformers_gives(tasks):
    scores = {}
    for name, model in {
        "ours": JacobiLM("tiny-base", batch_size=3, strategy="multiblock", pool_size=2),
        "theirs": HFLM(
            load_model("tiny-base").network, tokenizer=load_model("tiny-base").tokenizer
        ),
    }.items():
        found = simple_evaluate(
            model, tasks=["bundled_math"], task_manager=TaskManager(include_path=str(tasks))
        )
        scores[name] = found["results"]["bundled_math"]["exact_match,none"]
    assert scores == {"ours": 0.5, "theirs": 0.5}


def test_texts_and_likelihoods_are_those_of_transformers():
    ours = JacobiLM("tiny-forced", batch_size=4)
    plain = load_model("tiny-forced")
    theirs = HFLM(plain.network, tokenizer=plain.tokenizer, batch_size=1)
    prompts = [problem.prompt for problem in problems.held_out("math", 6, 0)]
    until = {"until": ["dollars", "\n"], "max_gen_toks": 80}
    asked = [Instance("generate_until", {}, (p, until), i) for i, p in enumerate(prompts)]
    texts = ours.generate_until(asked)
    assert texts == theirs.generate_until(asked)
    assert any(texts)
    assert ours.tokens_per_forward > 2
    pairs = [Instance("loglikelihood", {}, (p, " Let us"), i) for i, p in enumerate(prompts)]
    found, right = ours.loglikelihood(pairs), theirs.loglikelihood(pairs)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in right]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in right], abs=1e-4)


def test_what_the_checkpoint_says_of_texts_holds_as_for_the_harness_s_own(tmp_path):
    folder = save_toy(tmp_path / "model")
    file = folder / "generation_config.json"
    settings = {"suppress_tokens": [9, 17, 22], "no_repeat_ngram_size": 2, "min_new_tokens": 6}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", EOS)]
    )
    tokenizer.save_pretrained(folder)
    ours = JacobiLM(str(folder), batch_size=2)
    plain = load_model(str(folder))
    theirs = HFLM(plain.network, tokenizer=toy_tokenizer(), batch_size=1)  # which appends nothing
    contexts = ["w5 w6 w7", "w30 w8", "w2 w2 w41 w9"]
    until = {"until": ["w63"], "max_gen_toks": 12}
    asked = [Instance("generate_until", {}, (text, until), i) for i, text in enumerate(contexts)]
    texts = ours.generate_until(asked)
    assert texts == theirs.generate_until(asked)
    plain.network.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=PAD)
    assert texts != theirs.generate_until(asked)


def test_settings_that_mean_something_else_are_refused():
    with pytest.raises(ConfigError, match="strategy"):
        JacobiLM("tiny-base", strategy="beam")
    model = JacobiLM("tiny-base")
    asked = [Instance("generate_until", {}, ("x\n", {"until": [], "num_beams": 4}), 0)]
    with pytest.raises(ConfigError, match="num_beams"):
        model.generate_until(asked)


def test_the_command_knows_the_model(tasks):
    command = [sys.executable, "-m", "jacobi_forcing.integrations.lm_eval", "run"]
    command += ["--model", "jacobi", "--model_args", "pretrained=tiny-base,strategy=window"]
    command += ["--tasks", "bundled_math", "--include_path", str(tasks), "--batch_size", "4"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    assert "bundled_math" in found.stdout
    assert "0.5" in found.stdout


def test_an_automatic_batch_size_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 'auto', must be a number"):
        JacobiLM("tiny-forced", batch_size="auto")
