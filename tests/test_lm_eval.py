"""The LM Evaluation Harness with our decoder scores what it scores with transformers' own.

Needs the `lm-eval` extra: pip install -e '.[dev,lm-eval]'; pytest tests/test_lm_eval.py
"""

import json
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="needs the lm-eval extra")

import lm_eval
import yaml
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
    refused = {"num_beams": 4, "max_length": 9, "no_repeat_ngram_size": 3, "beans": None}
    asked = [ask({"until": [], "num_beams": 4}), ask(refused), ask({})]
    with pytest.raises(ConfigError) as refusal:
        model.generate_until(asked)
    for name, value in refused.items():  # all of them, of all requests
        assert f"{name} = {value!r}" in str(refusal.value)
    for drawn in ({"do_sample": True}, {"do_sample": True, "temperature": 0.0}):
        with pytest.raises(ConfigError, match=r"temperature = 0\.0 cannot be done"):
            model.generate_until([ask(drawn)])


def ask(settings, prompt="Anna has 12 pens and buys 5 more. How many pens does she have?\n"):
    return Instance("generate_until", {}, (prompt, {"max_gen_toks": 12} | settings), 0)


GREEDY = [
    *({"do_sample": False}, {"temperature": 0}, {"temperature": 0.0, "top_p": 1, "top_k": 50}),
    *({"do_sample": False, "temperature": 1.0}, {"do_sample": False, "temperature": 0.7}),
    *({"num_beams": 1}, {"num_beams": 1, "early_stopping": True, "length_penalty": 1.0}),
    *({"num_return_sequences": 1}, {"n": 1}, {"use_cache": True}, {"min_p": None, "top_k": -1}),
    *({"repetition_penalty": 1}, {"repetition_penalty": None}, {"no_repeat_ngram_size": 0}),
    *({"seed": 7}, {"until": None}, {"until": []}, {"until": [""]}, {"until": "~never~"}),
    *({"stop": []}, {"stop": None}, {"stop_strings": ["~never~"]}, {"pad_token_id": 0}),
    *({"max_new_tokens": 12, "max_gen_toks": None}, {"max_tokens": 12, "max_gen_toks": None}),
    *({"temperature": None}, {"do_sample": None}, {"seed": None}, {"n": None}),
    *({"typical_p": 0.9}, {"min_new_tokens": 0}, {"eos_token_id": None}, {"penalty_alpha": 0.0}),
]


def test_settings_that_mean_what_we_do_are_taken():
    model = JacobiLM("tiny-forced", batch_size=8)
    (plain,) = model.generate_until([ask({})])
    assert plain
    for settings, text in zip(GREEDY, model.generate_until(list(map(ask, GREEDY))), strict=True):
        assert text == plain, settings
    ends = [{name: stop} for name in ("until", "stop", "stop_strings") for stop in (" ", [" "])]
    for settings, text in zip(ends, model.generate_until(list(map(ask, ends))), strict=True):
        assert text == plain.partition(" ")[0] != plain, settings
    eos = sorted(model.loaded.eos_ids)
    assert model.generate_until([ask({"eos_token_id": eos})]) == [plain]
    with pytest.raises(ConfigError, match="eos_token_id"):
        model.generate_until([ask({"eos_token_id": eos[0] + 1})])
    drawn = {"do_sample": True, "temperature": 1.0, "top_p": 1, "top_k": -1, "num_beams": 1}
    once, again, other = model.generate_until([ask(drawn | {"seed": s}) for s in (7, 6, 6)])
    assert once == again != other  # a request's own seed is that of its place


class Loader(yaml.SafeLoader):
    """Reads task files without their functions."""


Loader.add_multi_constructor("!", lambda *_: None)


def generation_settings(node):
    """All generation settings in what a task file holds."""
    if isinstance(node, dict):
        if isinstance(node.get("generation_kwargs"), dict):
            yield node["generation_kwargs"]
        node = list(node.values())
    for part in node if isinstance(node, list) else ():
        yield from generation_settings(part)


def test_every_task_file_means_what_we_do_or_is_refused_by_name():
    found = {}
    for path in (Path(lm_eval.__file__).parent / "tasks").rglob("*"):
        text = path.read_text(errors="ignore") if "yaml" in path.name and path.is_file() else ""
        if "generation_kwargs" in text:
            with suppress(yaml.YAMLError):  # some hold what is no YAML
                for settings in generation_settings(yaml.load(text, Loader)):
                    found[json.dumps(settings, sort_keys=True)] = settings
    assert len(found) > 100
    model = JacobiLM("tiny-forced")
    refused = Counter()
    for settings in found.values():
        refused.update(model._settings(settings).refused.keys())
    assert set(refused) <= {"num_beams", "do_sample", "temperature"}
    assert refused["num_beams"] == 1  # of 10
    assert refused["do_sample"] < 5  # sampling without a temperature


def test_a_prompt_without_room_is_refused_or_cut_with_a_line(caplog):
    model, plain = JacobiLM("tiny-forced"), load_model("tiny-forced")
    theirs = HFLM(plain.network, tokenizer=plain.tokenizer)
    holds = plain.context_tokens
    whole = ask({"max_gen_toks": holds})
    with pytest.raises(ConfigError, match=f"{holds} tokens .max_gen_toks., but the context"):
        model.generate_until([ask({}), whole])
    with pytest.raises(AssertionError, match="must be less than"):
        theirs.generate_until([whole])
    long = ask({"max_gen_toks": holds - 20, "until": ["."]}, prompt=whole.args[0] * 5)
    with caplog.at_level("WARNING", "jacobi_forcing"):
        texts = model.generate_until([ask({}), long])
    told = [r.getMessage() for r in caplog.records if r.name.startswith("jacobi_forcing")]
    assert len(told) == 1
    assert told[0].startswith(f"1 of 2 prompts are longer than the context of {holds} tokens")
    assert texts[1] == theirs.generate_until([long])[0] != ""


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
