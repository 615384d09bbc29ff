"""Rounds: any number of them, growing, sampled and mixed; stopped anywhere; compared on a page."""

import json
import random
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from packs import random_trajectories, write_trajectories
from safetensors.torch import load_file
from test_collect_at_scale import run_and_die
from toys import save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.config import TrainConfig
from jacobi_forcing.data.files import sha256
from jacobi_forcing.data.packed import read_packed
from jacobi_forcing.data.trajectories import read_all, read_manifest
from jacobi_forcing.decoding.measure import distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.drawing.rounds import Comparison, write_rounds_page
from jacobi_forcing.models import load_model
from jacobi_forcing.stages import average, collect, evaluate, force, judge, pack, train
from jacobi_forcing.stages.comparison import compared
from jacobi_forcing.stages.recipe import read_recipe

RECIPE = """
model = "{model}"
out = "{out}"
threads = 1
average = [0.1, 0.2, 0.3, 0.4]

[collect]
prompts = "self:10"
record = "states"
max_new_tokens = 12
self_prompt_tokens = 6
shard_prompts = 4

[train]
learning_rate = 3e-3
max_steps = 2
batch_size = 4
save_steps = 1
eval_prompts = "packed:2"
eval_max_new_tokens = 12

[evaluate]
problems = "self:3"
max_new_tokens = 12

[[rounds]]
collect.block_size = 3

[[rounds]]
collect = {{ block_size = 6, temperature = 0.9, top_p = 0.9 }}

[[rounds]]
members = 2
mix_earlier = 1
collect = {{ block_size = 6, seed = 1 }}
"""
STAGES = (collect, pack, train, average, evaluate)
# What the recipe asks for, in order.
ALL = ["evaluate", *["collect", "pack", "train", "evaluate"] * 2]
ALL += ["collect", "pack", "train", "train", "average", "evaluate", "average", "evaluate"]


class Stop(KeyboardInterrupt):
    """Ctrl-C between two stages."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("model") / "toy", max_position_embeddings=64)


def written(path, model, out):
    path.write_text(RECIPE.format(model=model, out=out))
    return str(path)


@pytest.fixture(scope="module")
def stopped(model, tmp_path_factory):
    """A run that was stopped behind every one of its stages, and what ran in each attempt."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe, attempts, pages = written(folder / "recipe.toml", model, folder / "out"), [], []
    page = folder / "out" / force.PAGE
    with pytest.MonkeyPatch.context() as patch:
        for stage in STAGES:
            name, run = stage.__name__.rpartition(".")[2], stage.run

            def stopping(config, name=name, run=run):
                attempts[-1].append(name)
                found = run(config)
                if sum(map(len, attempts)) < len(ALL):
                    raise Stop
                return found

            patch.setattr(stage, "run", stopping)
        for _ in ALL:
            attempts.append([])
            code = main(["force", recipe])
            assert code == (130 if len(attempts) < len(ALL) else 0)
            pages.append(page.read_text() if page.exists() else "")
        before = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*") if p.is_file()}
        attempts.append([])
        assert main(["force", recipe]) == 0  # all is done
        after = {p: p.stat().st_mtime_ns for p in before}
    return folder / "out", attempts, pages, [p for p in before if before[p] != after[p]]


def test_stopped_behind_any_stage_nothing_is_done_twice(stopped):
    out, attempts, _, changed = stopped
    assert attempts == [[name] for name in ALL] + [[]]
    assert changed == [out / force.PAGE]


def test_each_round_collects_with_the_model_before_it(stopped):
    out, *_ = stopped
    models = [read_manifest(out / f"round-{n}/trajectories", "collect") for n in (1, 2, 3)]
    weights = [manifest["origin"]["weights"] for manifest in models]
    names = [manifest["settings"]["model"] for manifest in models]
    assert [Path(name).parent.name for name in names[1:]] == ["round-1", "round-2"]
    assert weights[1:] == [
        load_model(str(out / f"round-{n}/model")).weights_fingerprint() for n in (1, 2)
    ]
    assert len(set(weights)) == 3


def test_blocks_grow_and_sampling_is_recorded(stopped):
    out, *_ = stopped
    for number, size, temperature in ((1, 3, 0.0), (2, 6, 0.9), (3, 6, 0.0)):
        manifest = read_manifest(out / f"round-{number}/trajectories", "collect")
        assert (manifest["block_size"], manifest["settings"]["temperature"]) == (size, temperature)
        rows = read_all(out / f"round-{number}/trajectories")
        assert {len(s) for row in rows for block in row.states for s in block} == {size}
        assert (
            json.loads((out / f"round-{number}/packed/manifest.json").read_text())["block_size"]
            == size
        )


def documents(folder, block_size):
    return [d for sequence in read_packed(folder, block_size) for d in sequence]


def test_mixed_rounds_are_packed_whole(stopped):
    out, *_ = stopped
    before, mixed = (documents(out / f"round-{n}/packed", 6) for n in (2, 3))
    own = len(list(read_all(out / "round-3/trajectories")))
    assert len(mixed) == len(before) + own
    texts = [d.input_ids.tobytes() for d in mixed]
    assert [d.input_ids.tobytes() for d in before] == texts[own:], "as they were packed before"
    manifest = read_manifest(out / "round-3/packed", "pack")
    folders = [Path(path).parent.parent.name for path in manifest["inputs"]]
    assert folders == ["round-3", "round-2"]
    assert main(["pack", "--check", str(out / "round-3/packed")]) == 0


def test_the_page_is_there_after_every_round(stopped):
    _, _, pages, _ = stopped
    done = [re.search(r"<p>(\d) of 3 rounds are done", page) for page in pages]
    done = [int(found[1]) if found else 0 for found in done]
    assert done == sorted(done)
    # One is written when the next stage is asked for: before it, the run was stopped.
    first = [done.index(number) for number in (1, 2, 3)]
    assert first == [5, 9, 15]


def test_killed_anywhere_it_comes_to_the_same_model(model, stopped, tmp_path):
    """SIGKILL inside a stage: at any operation on files, of collecting, packing, training, ..."""
    recipe = written(tmp_path / "recipe.toml", model, tmp_path / "out")
    moment = random.SystemRandom().randrange(20, 600)  # of 750; another in every run of the tests
    assert len(run_and_die(["force", recipe], tmp_path / "out", moment)) >= moment
    assert not (tmp_path / "out" / "average" / "report.json").exists()
    assert main(["force", recipe]) == 0
    for name in ("round-1/model", "round-3/member-2", "average"):
        ours, whole = (
            load_file(out / name / "model.safetensors") for out in (tmp_path / "out", stopped[0])
        )
        assert ours.keys() == whole.keys()
        assert all((ours[key] == whole[key]).all() for key in ours), moment


def test_trajectories_that_changed_are_packed_again(model, tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.toml"
    text = RECIPE.format(model=model, out=tmp_path / "out").partition("[[rounds]]")[0]
    recipe.write_text(re.sub(r"average = .*", "", text.partition("[evaluate]")[0]))
    with monkeypatch.context() as patch:
        patch.setattr(train, "run", lambda config: (_ for _ in ()).throw(Stop))
        assert main(["force", str(recipe)]) == 130
        packed = tmp_path / "out/round-1/packed"
        first = (packed / "manifest.json").stat().st_mtime_ns
        assert main(["force", str(recipe)]) == 130
        assert (packed / "manifest.json").stat().st_mtime_ns == first
        (tmp_path / "out/round-1/trajectories/manifest.json").unlink()
        assert main(["force", str(recipe)]) == 130
    again = read_manifest(packed, "pack")
    source = tmp_path / "out/round-1/trajectories/manifest.json"
    assert again["inputs"] == {str(source): sha256(source)}


def test_a_file_of_prompts_that_changed_is_refused(model, tmp_path, monkeypatch, refused):
    prompts, recipe = tmp_path / "prompts.jsonl", tmp_path / "recipe.toml"
    prompts.write_text("".join(f'{{"prompt": "w{i} w{i + 1}"}}\n' for i in range(2, 12)))
    text = RECIPE.format(model=model, out=tmp_path / "out").replace("self:10", str(prompts))
    text = text.partition("[[rounds]]")[0].partition("[evaluate]")[0]
    recipe.write_text(re.sub(r"average = .*", "", text))
    collected = []
    with monkeypatch.context() as patch:
        patch.setattr(pack, "run", lambda config: (_ for _ in ()).throw(Stop))
        assert main(["force", str(recipe)]) == 130
        patch.setattr(collect, "run", collected.append)
        assert main(["force", str(recipe)]) == 130  # what is collected is not collected again
        before = sha256(prompts)
        prompts.write_text(prompts.read_text().replace("w5", "w6"))
        line = refused("force", recipe)
        path = tmp_path / "out/round-1/trajectories/manifest.json"
        assert f"{path}: was begun with sha256 of {prompts} = '{before}', now it is" in line
        manifest = json.loads(path.read_text())
        del manifest["inputs"]
        path.write_text(json.dumps(manifest))
        assert main(["force", str(recipe)]) == 130  # an older folder
    assert not collected


# Mixing


def folders(tmp_path, **facts):
    trajectories = random_trajectories(3, 9)
    found = [{"origin": {"weights": "a"}}, {"origin": {"weights": "b"}} | facts]
    return [
        write_trajectories(tmp_path / str(n), trajectories[n:], facts=fact)
        for n, fact in enumerate(found)
    ]


def test_several_answers_to_a_prompt_are_packed_only_if_that_is_asked_for(tmp_path, refused):
    first, other = folders(tmp_path)
    base = ("pack", "--no-solved-only", "--trajectories", f"{first},{other}", "--out")
    line = refused(*base, tmp_path / "out")
    assert "was collected with weights 'b'" in line
    assert "with --mix" in line
    assert (
        main(
            [str(a) for a in (*base, tmp_path / "out", "--mix", "--copies", 2, "--phase", "random")]
        )
        == 0
    )
    found = Counter(d.prompt_index for d in documents(tmp_path / "out", 4))
    assert (found[0], found[1]) == (2, 4)  # the second folder has no answer to prompt 0
    assert sorted(found) == list(range(9))
    assert main(["pack", "--check", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("fact", [{"block_size": 8}, {"tokenizer": "x"}, {"record": "answers"}])
def test_what_does_not_go_together_is_not_mixed(fact, tmp_path, refused):
    first, other = folders(tmp_path, **fact)
    line = refused("pack", "--mix", "--trajectories", f"{first},{other}", "--out", tmp_path / "o")
    assert f"{other}: was collected with {next(iter(fact))}" in line
    assert "--mix" not in line.partition("was collected")[2]


def test_a_folder_that_is_named_twice_is_refused(tmp_path, refused):
    first, other = folders(tmp_path)
    names = f"{first},{other},{first}"
    line = refused("pack", "--mix", "--trajectories", names, "--out", tmp_path / "out")
    assert f"--trajectories names {first} twice." in line


def test_a_prompt_is_kept_out_of_training_whatever_its_number(tmp_path):
    """Of the same text in two rounds, at other places of their sources, neither is trained on."""
    first, other = folders(tmp_path)
    rows = [t._replace(prompt_index=20 - t.prompt_index) for t in read_all(other)]
    turned = write_trajectories(tmp_path / "turned", rows, facts={"origin": {"weights": "b"}})
    line = ["pack", "--mix", "--no-solved-only", "--trajectories", f"{first},{turned}"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    sequences = read_packed(tmp_path / "out", 4)
    config = TrainConfig(model="m", packed="p", out="o")
    training, prompts = judge._hold_out(config, sequences, 2)
    left = [d.prompt.tolist() for sequence in training for d in sequence]
    assert len(prompts) == 2
    assert not [prompt for prompt in prompts if prompt in left]
    assert len(left) == len(sequences) - 4  # each of the two has two answers


# Recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mix_earlier = -1", "round 1: mix_earlier is -1, must be a whole number, at least 0."),
        ("mix_earlier = true", "round 1: mix_earlier is True, must be a whole number"),
        ("mix_erlier = 1", "unknown setting 'mix_erlier'. Did you mean 'mix_earlier'?"),
        ("[pack]\nmix = true", "round 1: [pack]: mix is set by the recipe itself."),
        ("[collect]\ntop_p = 0.5", "round 1: [collect]: --top-p is 0.5, but at --temperature 0"),
        (
            "mix_earlier = 2\n[[rounds]]\n[[rounds]]\ncollect.block_size = 32",
            "round 2: mix_earlier packs the trajectories of round 1 too, but their "
            "collect.block_size is 16, and here it is 32.",
        ),
        (
            "[[rounds]]\ncollect.record = 'answers'\n[[rounds]]\nmix_earlier = 1",
            "round 2: mix_earlier packs the trajectories of round 1 too, but their collect.record",
        ),
        ("[evaluate]\nstrategies = 'beam'", "[evaluate]: --strategies names 'beam'; write some"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_line(text, message, tmp_path, refused):
    recipe = tmp_path / "recipe.toml"
    text = text.replace("[collect]\n", "[collect]\nprompts = 'self:4'\n")
    text += "" if "[collect]" in text else "\n[collect]\nprompts = 'self:4'\n"
    recipe.write_text(f'model = "m"\nout = "{tmp_path}/out"\n{text}')
    line = refused("force", recipe)
    assert line.startswith(f"jacobi force: {recipe}: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_round_mixes_as_many_as_there_are(tmp_path):
    recipe = tmp_path / "recipe.toml"
    head = 'model = "m"\nout = "o"\nmix_earlier = 2\n[collect]\nprompts = "self:4"\n'
    recipe.write_text(head + "[[rounds]]\n" * 4 + "mix_earlier = 0\n" + "[[rounds]]\n" * 2)
    mixed = [
        [Path(folder).parent.name[-1] for folder in stages.pack.folders]
        for stages in read_recipe(recipe).rounds
    ]
    assert ["".join(one) for one in mixed] == ["1", "21", "312", "4", "534", "645"]


# Evaluating text


def test_free_text_is_judged_by_the_original(stopped, model, tmp_path):
    out, *_ = stopped
    report = json.loads((out / "round-2/evaluation/summary.json").read_text())
    original, judged = load_model(str(model)), load_model(str(out / "round-2/model"))
    prompts = sample_prompts(original, 3, max_tokens=32, seed=2**32)
    answers = []
    for ids in prompts:
        slow = list(ids)
        while len(slow) < len(ids) + 12 and slow[-1] not in original.eos_ids:
            slow.append(int(judged.network(torch_row(slow)).logits[0, -1].argmax()))
        answers.append(slow[len(ids) :])
    assert report["nll"] == pytest.approx(negative_log_likelihood(original, prompts, answers))
    assert report["distinct_8grams"] == distinct_ngrams(answers)
    assert report["num_problems"] == 3
    assert report["num_mismatches"] == 0
    start = json.loads((out / "start/evaluation/summary.json").read_text())
    assert start["nll"] != report["nll"]
    assert "accuracy" not in report


def torch_row(ids):
    import torch

    return torch.tensor([ids])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--problems", "self:0"), "--problems is 'self:0'; write self:N"),
        (("--problems", "self:many"), "--problems is 'self:many'; write self:N"),
        (("--original", "tiny-base", "--limit", "1"), "tiny-base has another tokenizer"),
        (("--problems", "self:2", "--original", "tiny-base"), "tiny-base has another tokenizer"),
    ],
)
def test_texts_that_cannot_be_judged_are_refused(flags, message, model, refused):
    assert message in refused("evaluate", "--model", model, *flags)


# The page


def classes(attrs):
    return (attrs.get("class") or "").split()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_says_what_the_files_say(stopped, model):
    out, *_ = stopped
    page = Page((out / force.PAGE).read_text())
    for folder in ("start", "round-1", "round-2", "round-3", "average"):
        report = json.loads((out / folder / "evaluation/summary.json").read_text())
        assert f"{report['tokens_per_forward']:.2f}" in page.text
        assert f"{report['nll']:.3f}" in page.text
        assert f"{report['speedup_median']:.2f}x" in page.text
    for name in ("member-1", "member-2"):
        after = json.loads((out / "round-3" / name / "run.json").read_text())["after"]
        assert f"{after['nll']:.3f}" in page.text
    for text in ("round 3, member 2", "average", "sampled at 0.9", "collect.block_size"):
        assert text in page.text
    assert "collect.batch_size" not in page.text  # the same in all rounds
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert len(links) == len(set(links)) > 12
    assert all((out / link).is_file() for link in links)


def test_rounds_lie_one_behind_another(stopped, model, tmp_path):
    out, *_ = stopped
    recipe = Path(written(tmp_path / "recipe.toml", model, out))
    page = Page((out / force.PAGE).read_text())
    lines = [attrs["points"] for _, attrs in page.tags if "series" in classes(attrs)]
    assert len(lines) == 4 * 4  # four charts, four trainings
    ends = [[float(line.split()[n].split(",")[0]) for n in (0, -1)] for line in lines[:4]]
    assert ends[0][1] == ends[1][0] < ends[1][1] == ends[2][0] < ends[2][1]
    assert ends[2] == ends[3]  # members, side by side
    # A run that is under way has a page too.
    run = compared(read_recipe(recipe), 1)
    write_rounds_page(tmp_path / "page.html", run)
    text = Page((tmp_path / "page.html").read_text()).text
    assert "1 of 3 rounds are done" in text
    assert "round 2" not in text


def test_a_page_needs_nothing_from_outside_and_no_name_becomes_markup(stopped, tmp_path, model):
    out, *_ = stopped
    hostile = "<script>alert(1)</script>{{charts}}"
    recipe = read_recipe(Path(written(tmp_path / "recipe.toml", model, out)))
    run = compared(recipe, 3)
    learned = [one._replace(name=hostile + one.name) for one in run.rounds]
    learned[0].settings["collect.prompts"] = hostile
    models = [one._replace(name=hostile, links={hostile: '"><script>'}) for one in run.models]
    write_rounds_page(tmp_path / "page.html", Comparison(hostile, 3, models, learned))
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text
    assert Page(text).text.count(hostile) > len(models) + 3


def test_problems_have_accuracy_with_its_interval_on_the_page(stopped, tmp_path, model):
    out, *_ = stopped
    run = compared(read_recipe(Path(written(tmp_path / "recipe.toml", model, out))), 2)
    solved = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94}

    def with_accuracy(one):
        report = {k: v for k, v in one.report.items() if k not in ("nll", "distinct_8grams")}
        return one._replace(report=report | solved)

    models = [with_accuracy(one) for one in run.models]
    write_rounds_page(tmp_path / "page.html", run._replace(models=models))
    text = Page((tmp_path / "page.html").read_text()).text
    assert text.count("90.0% (85.0% to 94.0%)") == len(models) == 4
    assert "accuracy with its 95 % interval" in text


def test_what_was_cleared_away_since_has_no_figures(stopped, tmp_path, model):
    out, *_ = stopped
    run = compared(read_recipe(Path(written(tmp_path / "recipe.toml", model, out))), 3)
    cleared = [one._replace(collected={}, packed={}, links={}) for one in run.rounds]
    write_rounds_page(tmp_path / "page.html", run._replace(rounds=cleared))
    # A folder's name may hold any number.
    whole, without = (
        Page(page.read_text()).text.replace(str(model), "MODEL")
        for page in (out / force.PAGE, tmp_path / "page.html")
    )
    assert "MODEL" in whole
    kept = f"{run.rounds[0].collected['num_tokens']:,}"
    assert kept in whole
    assert kept not in without
