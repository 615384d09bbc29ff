"""Other engines' decoders as baselines: the same answers, counted as ours are."""

import html
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import transformers
from toys import save_toy, toy_model, toy_tokenizer

from jacobi_forcing.config import CompareConfig, EvaluateConfig
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE, compare, in_turns, take_turns
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.evaluation.answers import Answers
from jacobi_forcing.evaluation.tasks import OwnTask, Verdict
from jacobi_forcing.integrations.outside import generate, vllm
from jacobi_forcing.stages import compare as compare_stage
from jacobi_forcing.stages import evaluate

ALL = ["autoregressive", "prompt-lookup", "assisted"]
PROMPTS = [[i, i + 3, 2 * i, i, i + 3] for i in (2, 3, 6, 7)]


def decoded(model, strategies=ALL, prompts=PROMPTS, **more):
    """Runs per strategy."""
    settings = {"max_new_tokens": 40} | more
    ways = generate.ways(model, strategies, prompts, **settings)
    turns = list(in_turns(ways, len(prompts)))
    assert [list(group) for group, _ in turns] == [[i] for i in range(len(prompts))]
    return {name: [runs[number][0] for _, runs in turns] for number, name in enumerate(strategies)}


# transformers' generate


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_all_strategies_give_our_ids_with_their_own_forwards(family):
    model, assistant = toy_model(family), toy_model(family)
    ours = compare(model, PROMPTS, [AUTOREGRESSIVE], max_new_tokens=40)[0]
    calls = []
    hook = model.network.register_forward_pre_hook(lambda *_: calls.append(None))
    found = decoded(model, assistant=assistant)
    hook.remove()
    for runs in found.values():
        for run, right in zip(runs, ours, strict=True):
            assert (run.answer, run.reason) == (right.answer, right.reason)
            assert sum(run.settled) == len(run.answer)
            assert 0 < run.first_seconds <= run.seconds == run.all_seconds
            assert run.proposed == run.right == []
    forwards = {name: sum(run.num_forwards for run in runs) for name, runs in found.items()}
    num_tokens = sum(len(run.answer) for run in ours)
    assert forwards["autoregressive"] == num_tokens
    assert forwards["prompt-lookup"] < num_tokens
    assert forwards["assisted"] < 0.7 * num_tokens  # the assistant's own are not counted
    warm_up = sum(runs[0].num_forwards for runs in found.values())
    assert len(calls) == sum(forwards.values()) + warm_up
    assert {run.reason for run in ours} == {"length", "eos"}


@pytest.mark.parametrize("strategy", ALL)
def test_answers_end_at_the_token_that_completes_a_stop_text(strategy):
    model, assistant = toy_model(), toy_model()
    plain = compare(model, PROMPTS, [AUTOREGRESSIVE], max_new_tokens=40)[0]
    longest = max((run.answer for run in plain), key=len)
    stop = [toy_tokenizer().decode(longest[7:9])]
    turns = take_turns(model, PROMPTS, [AUTOREGRESSIVE], max_new_tokens=40, stop=stop)
    right = [runs[0][0] for _, runs in turns]
    found = decoded(model, [strategy], stop=stop, assistant=assistant)[strategy]
    assert [(r.answer, r.reason) for r in found] == [(r.answer, r.reason) for r in right]
    assert all(sum(run.settled) == len(run.answer) for run in found)
    assert "stop" in {run.reason for run in found}


def test_what_a_checkpoint_says_about_generating_changes_nothing():
    model = toy_model()
    right = compare(model, PROMPTS, [AUTOREGRESSIVE], max_new_tokens=20)[0]
    model.network.generation_config.repetition_penalty = 5.0
    model.network.generation_config.do_sample = True
    model.network.generate = None  # as a checkpoint with custom_generate has its own
    found = decoded(model, ["autoregressive"], max_new_tokens=20)["autoregressive"]
    assert [run.answer for run in found] == [run.answer for run in right]


def test_answers_end_with_the_context():
    model = toy_model(max_position_embeddings=32)
    prompts = [[5, 6, 7, 8] * 5]
    found = decoded(model, ["autoregressive"], prompts, max_new_tokens=99)["autoregressive"]
    right = compare(model, prompts, [AUTOREGRESSIVE], max_new_tokens=99)[0]
    assert [run.answer for run in found] == [run.answer for run in right]
    assert len(found[0].answer) <= 12
    with pytest.raises(ConfigError, match=r"context of toy-qwen2 holds 32. Lower --max-new.* 2\."):
        decoded(model, ["prompt-lookup"], prompts, max_new_tokens=99)
    decoded(model, ["prompt-lookup"], prompts, max_new_tokens=2)


# The stage


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two toys with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    return [str(save_toy(folder / f"toy-{seed}", seed=seed)) for seed in (0, 1)]


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    lines = [{"prompt": f"w{i} w{i + 5} w{2 * i}", "check": {"answer": "1"}} for i in range(2, 8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def half(monkeypatch):
    """Let some texts be right: by their length."""

    def judge(self, answers):
        return [Verdict(len(text) % 2 == 0, "by its length") for _, text in answers]

    monkeypatch.setattr(OwnTask, "judge", judge)


def settings(models, problems, **more):
    values = {"model": models[0], "problems": problems, "max_new_tokens": 20, "device": "cpu"}
    return EvaluateConfig(**values | {"engine": "transformers"} | more)


def test_every_answer_is_judged_and_counted_as_ours_are(models, problems, tmp_path, half):
    out = tmp_path / "out"
    assisted = {"assistant": models[0], "original": models[1]}
    summary = evaluate.run(settings(models, problems, out=str(out), **assisted))
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["engine"], summary["engine_version"]) == (
        "transformers",
        transformers.__version__,
    )
    assert list(summary["decoders"]) == ALL
    assert "block_size" not in summary
    ours = evaluate.run(settings(models, problems, engine="jacobi", original=models[1]))
    for figures in summary["decoders"].values():
        for name in ("accuracy", "ids_digest", "num_tokens", "p_value", "original_accuracy"):
            assert figures[name] == ours[name]
        assert figures["num_mismatches"] == 0
        assert figures["acceptance"] == []
    assert summary["decoders"]["autoregressive"]["tokens_per_forward"] == 1.0
    assert summary["decoders"]["assisted"]["tokens_per_forward"] > 1.0
    assert 0 < summary["accuracy"] < 1
    page = html.unescape((out / "report.html").read_text())
    assert f"transformers {transformers.__version__}, assisted by {models[0]}" in page
    assert "Of assisted decoding the model's own forwards are counted" in page
    assert "Acceptance by place" not in page


def test_it_goes_on_where_it_was_stopped(models, problems, tmp_path, monkeypatch):
    out, kept = tmp_path / "out", Answers.add
    given = settings(models, problems, out=str(out))

    def stopped(self, new):
        if len(self.records) == 3:
            raise KeyboardInterrupt
        kept(self, new)

    monkeypatch.setattr(Answers, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(given)
    monkeypatch.setattr(Answers, "add", kept)
    before = {path: path.read_bytes() for path in (out / "problems").iterdir()}
    assert len(before) == 3
    summary = evaluate.run(given)
    assert all(path.read_bytes() == text for path, text in before.items())
    assert summary["num_problems"] == 6
    monkeypatch.setattr(generate, "ways", None)  # nothing is left, so no engine is asked
    assert evaluate.run(given)["ids_digest"] == summary["ids_digest"]
    with pytest.raises(ConfigError, match="was begun with engine = 'transformers', now it is 'ja"):
        evaluate.run(settings(models, problems, out=str(out), engine="jacobi"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--strategy window", "--strategy is 'window', which means nothing to --engine transform"),
        ("--block-size 16", "--block-size is 16, which means nothing to --engine transformers. L"),
        ("--compile", "--compile is True, which means nothing"),
        ("--batch-size 4", "--batch-size is 4, but --engine transformers is measured at 1"),
        ("--strategies window", "names 'window'; write some of prompt-lookup, assisted, each once"),
        ("--strategies prompt-lookup,assisted", "names assisted, which needs --assistant"),
        ("--strategies autoregressive --assistant m", "--strategies does not name assisted"),
        ("--assistant no/such/folder", "no/such/folder: no such folder"),
        ("--engine vllm --quantize int8", "--quantize is 'int8', which means nothing to --engine"),
        ("--engine vllm --pool-size 4", "--pool-size is 4, which means nothing to --engine vllm"),
        ("--engine vllm --device cpu", "--device is 'cpu', which means nothing to --engine vllm"),
        ("--engine vllm", "vLLM, best in an environment of its own. Run: pip install 'jacobi-forc"),
        ("--engine jacobi --assistant m", "--assistant is 'm', which needs --engine transformers"),
    ],
)
def test_what_means_nothing_or_is_missing_is_refused(
    flags, message, models, problems, refused, monkeypatch
):
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    base = ["--engine", "transformers", "--model", models[0], "--problems", problems]
    assert message in refused("evaluate", *base, *flags.split())


def test_assistants_that_cannot_draft_are_refused(models, problems, tmp_path, refused):
    base = ["--engine", "transformers", "--model", models[0], "--problems", problems]
    line = refused("evaluate", *base, "--assistant", "tiny-base")
    assert "--assistant tiny-base has another tokenizer than" in line
    padded = save_toy(tmp_path / "padded", vocab_size=80)
    assert "embeds 80 ids and" in refused("evaluate", *base, "--assistant", padded)
    short = save_toy(tmp_path / "short", max_position_embeddings=64)
    line = refused("evaluate", *base, "--assistant", short)
    assert "has a context of 64 tokens, but prompts with their answers take up to 259" in line


def test_evaluations_of_several_engines_are_compared(
    models, problems, tmp_path, half, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")  # paths are long
    ours, theirs, page = (str(tmp_path / name) for name in ("ours", "theirs", "page.html"))
    evaluate.run(settings(models, problems, engine="jacobi", out=ours))
    evaluate.run(settings(models, problems, out=theirs))
    capsys.readouterr()
    lines = compare_stage.run(CompareConfig(reports=(ours, theirs), html=page))
    engine = f"transformers {transformers.__version__}"
    assert [line.name for line in lines] == [
        f"{models[0]}, autoregressive",
        f"{models[0]}, window",
        f"{models[0]}, {engine}, autoregressive",
        f"{models[0]}, {engine}, prompt-lookup",
    ]
    (digest,) = {line.figures["ids_digest"] for line in lines}  # all answers are the same
    printed = capsys.readouterr().out
    assert printed.count(digest[:6]) == 4
    assert engine in printed
    text = (tmp_path / "page.html").read_text()
    assert all(line.name in text for line in lines)
    assert "Accuracy against tokens per second" in text
    assert "Accuracy against speed-up" not in text
    alone = compare_stage.run(CompareConfig(reports=(theirs,), html=page))
    assert len(alone) == 2
    assert "Accuracy against speed-up" in (tmp_path / "page.html").read_text()
    evaluate.run(settings(models, problems, out=f"{theirs}-2", limit=3))
    with pytest.raises(ConfigError, match="answers other problems than"):
        compare_stage.run(CompareConfig(reports=(ours, f"{theirs}-2")))


# vLLM, whose steps are acted here


class Engine:
    """Gives known answers, `width` tokens in every step; knows EOS and lengths, no stop texts."""

    def __init__(self, answers, width):
        self.answers, self.width = answers, width
        self.left, self.aborted = {}, []

    def add_request(self, name, prompt, settings):
        self.left[name] = self.answers[int(name)][: settings.max_tokens]

    def has_unfinished_requests(self):
        return bool(self.left)

    def abort_request(self, names):
        self.aborted += names
        for name in names:
            del self.left[name]

    def step(self):
        found = []
        for name, rest in list(self.left.items()):
            ids, self.left[name] = rest[: self.width], rest[self.width :]
            is_finished = not self.left[name]
            if is_finished:
                del self.left[name]
            output = SimpleNamespace(token_ids=ids)
            found.append(SimpleNamespace(request_id=name, finished=is_finished, outputs=[output]))
        return found


@pytest.fixture
def acted(monkeypatch):
    """vLLM's names; the arguments of the engines that are made, and the answers they give."""
    stage = SimpleNamespace(asked=[], answers=[])

    def load(path, **arguments):
        stage.asked.append(arguments)
        guesses = arguments.get("speculative_config", {}).get("num_speculative_tokens", 0)
        return SimpleNamespace(llm_engine=Engine(stage.answers, 1 + guesses))

    modules = {name: ModuleType(name) for name in ("vllm", "vllm.inputs", "vllm.sampling_params")}
    modules["vllm"].LLM = load
    modules["vllm"].SamplingParams = SimpleNamespace
    modules["vllm.inputs"].tokens_input = list
    modules["vllm.sampling_params"].RequestOutputKind = SimpleNamespace(DELTA=1)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm, "find_spec", lambda name: name)
    monkeypatch.setattr(vllm, "_prepare", lambda num_threads: None)
    return stage


@pytest.mark.parametrize("batch_size", [1, 3])
def test_steps_of_vllm_are_counted_per_answer(acted, batch_size):
    model = toy_model()
    right = compare(model, PROMPTS, [AUTOREGRESSIVE], max_new_tokens=40)[0]
    acted.answers = [run.answer for run in right]
    stop = [toy_tokenizer().decode(max(acted.answers, key=len)[7:9])]
    plain = take_turns(model, PROMPTS, [AUTOREGRESSIVE], max_new_tokens=40, stop=stop)
    ways = vllm.ways(
        model,
        ["autoregressive", "window"],
        PROMPTS,
        max_new_tokens=40,
        stop=stop,
        batch_size=batch_size,
        block_size=4,
    )
    found = [[], []]
    for _, runs in in_turns(ways, len(PROMPTS), batch_size=batch_size):
        for own, new in zip(found, runs, strict=True):
            own += new
            assert len({run.all_seconds for run in new}) == 1
            assert all(run.num_together == len(new) for run in new)
    expected = [runs[0][0] for _, runs in plain]
    for runs, width in zip(found, (1, 4), strict=True):
        for run, one in zip(runs, expected, strict=True):
            assert (run.answer, run.reason) == (one.answer, one.reason)
            assert run.num_forwards == -(-len(run.answer) // width)
            assert 0 < run.first_seconds <= run.seconds <= run.all_seconds
    assert {"stop", "length", "eos"} >= {run.reason for run in found[0]} > {"length"}
    assert [one.get("additional_config") for one in acted.asked] == [None, {"jacobi": {"seed": 0}}]
    assert acted.asked[1]["speculative_config"]["num_speculative_tokens"] == 3
