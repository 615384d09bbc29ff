"""Bad input: one line on stderr, exit code 2, nothing half-written."""

import errno
import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import save_toy, tiny_network, toy_tokenizer

from jacobi_forcing.cli import main
from jacobi_forcing.data import files

PROMPTS = [{"prompt": f"w{i} w{i + 1} w{i + 2}"} for i in range(2, 14)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy model whose context is 64 tokens."""
    return save_toy(tmp_path_factory.mktemp("toy") / "model", max_position_embeddings=64)


@pytest.fixture
def broken(toy, tmp_path):
    """A copy of the toy model, to be broken."""
    return shutil.copytree(toy, tmp_path / "broken")


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def prompts(tmp_path):
    return jsonl(tmp_path / "prompts.jsonl", PROMPTS)


def files_of(folder):
    """Every file below a folder, hidden ones included, with a hash of its bytes."""
    found = (p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in found}


def collecting(model, prompts, out, *more):
    settings = ["--block-size", "4", "--max-new-tokens", "12", "--shard-prompts", "2"]
    base = ["collect", "--model", model, "--prompts", prompts, "--out", out, "--threads", "1"]
    return [str(a) for a in (*base, *settings, *more)]


# Models


def edit_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights, next(name for name in weights if "down_proj" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def no_config(folder):
    (folder / "config.json").unlink()


def half_a_config(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: len(text) // 2])


def a_config_that_is_a_list(folder):
    (folder / "config.json").write_text("[]")


def a_config_of_another_type(folder):
    edit_config(folder, hidden_size="wide")


def an_unknown_family(folder):
    edit_config(folder, model_type="quen")


def truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def a_lost_weight(folder):
    edit_weights(folder, lambda weights, name: weights.pop(name))


def a_weight_of_another_shape(folder):
    edit_weights(folder, lambda weights, name: weights.update({name: weights[name][:3]}))


def weights_that_are_not_numbers(folder):
    edit_weights(folder, lambda weights, name: weights[name].fill_(torch.nan))


def only_a_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()


def no_end_of_text(folder):
    edit_config(folder, eos_token_id=None)
    (folder / "generation_config.json").unlink(missing_ok=True)
    toy_tokenizer(eos_token=None).save_pretrained(folder)


def a_state_space_model(folder):
    (folder / "config.json").write_text('{"model_type": "mamba", "vocab_size": 64}')


def linear_attention(folder):
    edit_config(folder, layer_types=["linear_attention"] * 3)


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (no_config, "a folder without config.json"),
        (half_a_config, "not a valid JSON file"),
        (a_config_that_is_a_list, "cannot load"),
        (a_config_of_another_type, "hidden_size"),
        (an_unknown_family, "quen"),
        (truncated_weights, "cannot load"),
        (a_lost_weight, "1 weights are missing or not of the shape"),
        (a_weight_of_another_shape, "1 weights are missing or not of the shape"),
        (weights_that_are_not_numbers, "not finite numbers"),
        (only_a_pickle, "model.safetensors"),
        (no_tokenizer, "tokenizer"),
        (no_end_of_text, "names an end-of-sequence token"),
        (a_state_space_model, "mamba keeps a running state that cannot be rolled back"),
        (linear_attention, "cannot be rolled back"),
    ],
)
def test_a_broken_model_is_refused_by_name(breaking, message, broken, prompts, tmp_path, refused):
    breaking(broken)
    line = refused(*collecting(broken, prompts, tmp_path / "out"))
    assert str(broken) in line
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_family_that_only_the_probe_finds_out_is_refused_by_name(prompts, tmp_path, refused):
    # MPT counts its ALiBi from the end of the cache, which is another place for every branch.
    network = tiny_network("mpt", d_model=32, n_heads=4, n_layers=2, max_seq_len=256)
    network.save_pretrained(tmp_path / "model")
    toy_tokenizer().save_pretrained(tmp_path / "model")
    line = refused(*collecting(tmp_path / "model", prompts, tmp_path / "out"))
    assert "mpt gives other logits" in line
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_refused(toy, prompts, tmp_path, refused):
    for device in ("cuda:99", "warp"):
        line = refused(*collecting(toy, prompts, tmp_path / "out", "--device", device))
        assert f"--device is '{device}'" in line


# Prompts


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ('{"prompt": "w2', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not valid JSON"),
        ("[1, 2]", 'needs an object with "prompt" or "messages"'),
        ('{"text": "w2"}', 'needs an object with "prompt" or "messages"'),
        ('{"messages": null}', 'needs an object with "prompt" or "messages"'),
        ('{"prompt": ""}', "must be a text and not empty"),
        ('{"prompt": " \\n"}', "must be a text and not empty"),
        ('{"prompt": 5}', "must be a text and not empty"),
        ('{"messages": [{"role": "user", "content": "w2"}]}', "has no chat template"),
        (json.dumps({"prompt": "w2 " * 64}), "has 64 tokens, but the model's context of 64"),
        (json.dumps({"prompt": "w2", "answer": 5}), "the answer is 5; it must be a text"),
    ],
)
def test_a_broken_prompt_is_named_by_file_and_line(second_line, message, toy, tmp_path, refused):
    second = second_line if isinstance(second_line, bytes) else second_line.encode()
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "w2"}\n\n' + second + b"\n")
    line = refused(*collecting(toy, path, tmp_path / "out"))
    assert f"{path}:3: " in line
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "messages", ["hello", [], [{"content": "no role"}], [{"role": "user"}], [5], {"role": "user"}]
)
def test_messages_that_the_template_refuses_are_named(messages, broken, tmp_path, refused):
    template = (
        "{% if messages is string or messages is mapping or not messages %}"
        "{{ raise_exception('needs a list') }}{% endif %}"
        "{% for m in messages %}{{ m['role'] + ' ' + m['content'] }}{% endfor %}"
    )
    (broken / "chat_template.jinja").write_text(template)
    path = jsonl(tmp_path / "prompts.jsonl", [{"messages": messages}])
    line = refused(*collecting(broken, path, tmp_path / "out"))
    assert f"{path}:1: the chat template refuses these messages" in line


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "missing.jsonl: cannot read: No such file or directory"),
        ("missing.parquet", "missing.parquet: not a readable Parquet file"),
        ("empty.jsonl", "empty.jsonl: no prompts found"),
        ("folder.jsonl", "folder.jsonl: cannot read: Is a directory"),
        ("text.parquet", "text.parquet: not a readable Parquet file"),
        ("self:0", "write self:N"),
        ("self:many", "write self:N"),
        ("bundled:x", "Write bundled:N"),
        ("bundled:0", "Write bundled:N"),
        ("bundled:poems:3", "Write bundled:N"),
        ("bundled:code", "Write bundled:N"),
        ("bundled:math:1", "context of 64"),
    ],
)
def test_a_source_without_prompts_is_refused(source, message, toy, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("\n\n")
    Path("folder.jsonl").mkdir()
    Path("text.parquet").write_text("no parquet")
    if source == "bundled:math:1":
        toy = save_toy(tmp_path / "short", max_position_embeddings=8)
        message = "context of 8"
    line = refused(*collecting(toy, source, tmp_path / "out"))
    assert message in line
    assert not (tmp_path / "out").exists()


def test_blocks_that_do_not_fit_are_refused_by_every_decoding_stage(
    toy, prompts, tmp_path, refused
):
    problems = jsonl(tmp_path / "p.jsonl", [{"prompt": "w2", "check": {"answer": "1"}}])
    commands = [
        ["collect", "--prompts", prompts, "--out", tmp_path / "out"],
        ["decode", "--prompt", "w2 w3"],
        ["evaluate", "--problems", problems, "--out", tmp_path / "found"],
    ]
    for command in commands:
        line = refused(*command, "--model", toy, "--block-size", "1")
        assert "--block-size is 1, must be at least 2" in line
        line = refused(*command, "--model", toy, "--block-size", "65")
        assert "--block-size is 65" in line
        assert "64 tokens" in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "found").exists()


def test_a_prompt_to_decode_is_checked(toy, tmp_path, refused):
    decode = ["decode", "--model", toy, "--block-size", "4"]
    assert "context of 64" in refused(*decode, "--prompt", "w2 " * 70)
    assert "--prompt is ' ', must not be empty" in refused(*decode, "--prompt", " ")
    assert f"cannot read {tmp_path}/no" in refused(*decode, "--prompt", f"@{tmp_path}/no")
    assert "no chat template" in refused(*decode, "--prompt", "w2", "--chat")


# Problems


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", 'needs an object with "prompt" and "check"'),
        ('{"prompt": "w2"}', '"check" must be an object'),
        ('{"prompt": "w2", "check": {}}', '"check" needs "answer"'),
        ('{"prompt": "w2", "check": {"answer": 3}}', '"check" needs "answer"'),
        ('{"prompt": "w2", "check": {"answer": "three"}}', '"check" needs "answer"'),
        ('{"prompt": "w2", "check": {"function": "f"}}', '"check" needs "answer"'),
        ('{"prompt": "w2", "check": {"function": "f", "tests": []}}', '"check" needs "answer"'),
        ('{"prompt": "w2", "check": {"function": "f", "tests": [1]}}', '"check" needs "answer"'),
        ('{"prompt": "", "check": {"answer": "3"}}', "must be a text and not empty"),
        (json.dumps({"prompt": "w2 " * 70, "check": {"answer": "3"}}), "context of 64"),
    ],
)
def test_a_broken_problem_is_named_by_file_and_line(second_line, message, toy, tmp_path, refused):
    path = tmp_path / "problems.jsonl"
    path.write_text(f'{{"prompt": "w2", "check": {{"answer": "3"}}}}\n{second_line}\n')
    report = tmp_path / "found"
    line = refused("evaluate", "--model", toy, "--problems", path, "--out", report)
    assert f"{path}:2: " in line
    assert message in line
    assert not report.exists()


def test_problems_that_are_not_there_are_refused(toy, tmp_path, refused):
    evaluate = ["evaluate", "--model", toy, "--problems"]
    assert "no such problems" in refused(*evaluate, tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").touch()
    assert "holds no problems" in refused(*evaluate, tmp_path / "empty.jsonl")
    assert "cannot read" in refused(*evaluate, tmp_path)


def test_code_from_a_file_is_not_run_unless_allowed(toy, tmp_path, refused):
    check = {"function": "f", "tests": [[[1], 1]]}
    path = jsonl(tmp_path / "problems.jsonl", [{"prompt": "w2", "check": check}])
    line = refused("evaluate", "--model", toy, "--problems", path)
    assert "--allow-code-execution" in line


# Folders


@pytest.fixture(scope="module")
def collected(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collected")
    prompts = jsonl(folder / "prompts.jsonl", PROMPTS)
    assert main(collecting(toy, prompts, folder / "out")) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def packed(collected, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "out"
    assert main(["pack", "--trajectories", str(collected), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("setting", "value"), [("block-size", 8), ("seed", 1), ("noise", "vocabulary")]
)
def test_a_folder_begun_with_other_settings_is_left_untouched(
    setting, value, toy, collected, refused
):
    before = files_of(collected)
    prompts = collected.parent / "prompts.jsonl"
    line = refused(*collecting(toy, prompts, collected, f"--{setting}", value))
    assert f"was begun with {setting.replace('-', '_')} = " in line
    assert str(value) in line
    assert files_of(collected) == before


def test_a_folder_begun_with_other_inputs_is_left_untouched(toy, collected, tmp_path, refused):
    out = shutil.copytree(collected, tmp_path / "out")
    prompts = shutil.copy(collected.parent / "prompts.jsonl", tmp_path)
    before = files_of(out)
    other = jsonl(tmp_path / "other.jsonl", PROMPTS[:-1])
    assert "was begun with prompts = " in refused(*collecting(toy, other, out))
    # The same names, but another content behind them.
    model = shutil.copytree(toy, tmp_path / "model")
    continued = [str(model) if a == str(toy) else a for a in collecting(toy, prompts, out)]
    settings = json.loads((out / "settings.json").read_text())
    settings |= {"model": str(model), "prompts": settings["prompts"]}
    (out / "settings.json").write_text(json.dumps(settings))
    before = files_of(out)
    assert main(continued) == 0
    edit_weights(model, lambda weights, name: weights[name].mul_(1.01))
    assert "was begun with weights = " in refused(*continued)
    assert files_of(out) == before


def test_where_the_work_is_done_may_change(toy, collected):
    before = files_of(collected)
    prompts = collected.parent / "prompts.jsonl"
    again = collecting(toy, prompts, collected, "--batch-size", "2", "--device", "cpu")
    assert main(again) == 0
    assert files_of(collected) == before


@pytest.mark.parametrize("more", [(), ("--shard", "1/2")])
def test_a_packed_folder_is_not_collected_into(toy, prompts, packed, refused, more):
    before = files_of(packed)
    line = refused(*collecting(toy, prompts, packed, *more))
    assert f"{packed}, which holds manifest.json, not written by `jacobi collect`" in line
    assert files_of(packed) == before


def training(model, packed, out, *more):
    base = ["train", "--model", model, "--packed", packed, "--out", out, "--threads", "1"]
    return [str(a) for a in (*base, "--max-steps", "1", "--eval-prompts", "packed:2", *more)]


def test_answers_without_states_are_for_online_training(toy, prompts, tmp_path, refused):
    answers, packed, out = (tmp_path / name for name in ("answers", "packed", "out"))
    assert main([*map(str, collecting(toy, prompts, answers, "--record", "answers"))]) == 0
    assert main(["pack", "--trajectories", str(answers), "--out", str(packed)]) == 0
    line = refused(*training(toy, packed, out))
    assert f"{packed}: holds answers without Jacobi states" in line
    assert "--states online" in line
    assert not out.exists()


def test_unfinished_folders_are_refused(toy, collected, packed, tmp_path, refused):
    out = tmp_path / "out"
    for folder in (tmp_path / "nothing", shutil.copytree(packed, tmp_path / "half")):
        (folder / "manifest.json").unlink(missing_ok=True)
        assert f"{folder}: no manifest.json" in refused(*training(toy, folder, out))
        line = refused("pack", "--trajectories", folder, "--out", out)
        assert "not a finished `jacobi collect` folder" in line
        assert ("There is no such folder" in line) == (folder.name == "nothing")
    line = refused(*training(toy, collected, out))
    assert "was written by collect, needed is pack" in line
    assert not out.exists()


def test_shards_that_are_not_the_listed_ones_are_refused(toy, packed, tmp_path, refused):
    def changed(name, change):
        folder = shutil.copytree(packed, tmp_path / name)
        change(sorted(folder.glob("part-*"))[-1])
        return folder

    def truncate(shard):
        shard.write_bytes(shard.read_bytes()[:-20])

    def one_more(shard):
        shutil.copy(shard, shard.with_name("part-00077.parquet"))

    for name, change in {"lost": Path.unlink, "cut": truncate, "more": one_more}.items():
        line = refused(*training(toy, changed(name, change), tmp_path / "out"))
        assert "is not the file that manifest.json lists" in line
    assert not (tmp_path / "out").exists()


def test_packed_data_of_another_tokenizer_is_refused(packed, broken, tmp_path, refused):
    path = broken / "tokenizer.json"
    path.write_text(path.read_text().replace('"w2"', '"other"'))
    line = refused(*training(broken, packed, tmp_path / "out"))
    assert "made with another tokenizer" in line
    assert not (tmp_path / "out").exists()


def test_rows_that_do_not_fit_the_block_size_are_refused(toy, packed, tmp_path, refused):
    folder = shutil.copytree(packed, tmp_path / "packed")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"block_size": 5}))
    line = refused(*training(toy, folder, tmp_path / "out"))
    assert "does not go with a block size of 5" in line
    assert "part-00000.parquet: row 0" in line
    assert not (tmp_path / "out").exists()


# Recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "not valid TOML"),
        ('out = "o"', 'needs model = "..."'),
        ('model = "m"', 'needs out = "..."'),
        ('model = 3\nout = "o"', 'needs model = "..."'),
        ("{head}modle = 1", "unknown setting 'modle'. Did you mean 'model'?"),
        ("{head}[collect]\nblok_size = 4", "round 1: [collect]: unknown setting 'blok_size'. Did"),
        ("{head}[colect]\nblock_size = 4", "unknown setting 'colect'. Did you mean 'collect'?"),
        (
            '{head}[collect]\nprompts = "self:4"\n[[rounds]]\n[[rounds]]\ntrain.lr = 1.0',
            "round 2: [train]: unknown setting 'lr'",
        ),
        ("{head}[[rounds]]\nblock_size = 4", "round 1: unknown setting 'block_size'"),
        ('{head}average = 1\n[collect]\nprompts = "self:4"', "must be a list of 2 numbers"),
        ('{head}average = [1.0]\n[collect]\nprompts = "self:4"', "average: --models names 2"),
        (
            '{head}members = 0\n[collect]\nprompts = "self:4"',
            "members is 0, must be a whole number, at least 1",
        ),
        ('{head}[collect]\nprompts = "self:4"\nblock_size = 1', "--block-size is 1"),
        ('{head}[collect]\nprompts = "self:4"\nblock_size = "1"', "needs a value of type int"),
        ('{head}[collect]\nprompts = "self:4"\nout = "x"', "out is set by the recipe itself"),
        ("{head}", "[collect]: missing setting prompts"),
        ("{head}collect = 5", "must be a table"),
        ("{head}rounds = 2", "rounds must be tables"),
        ("{head}[rounds]\nx = 1", "rounds must be tables"),
        ("{head}rounds = []", "rounds must be tables"),
        ('{head}seed = "x"\n[collect]\nprompts = "self:4"', "seed is 'x'"),
    ],
)
def test_a_broken_recipe_is_refused_before_anything_runs(text, message, tmp_path, refused):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text.replace("{head}", f'model = "m"\nout = "{tmp_path}/out"\n'))
    line = refused("force", recipe)
    assert line.startswith(f"jacobi force: {recipe}: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_not_there_is_refused(tmp_path, refused):
    assert "cannot read: No such file" in refused("force", tmp_path / "no.toml")


def test_a_recipe_whose_settings_changed_is_not_taken_for_done(tmp_path, refused):
    recipe = tmp_path / "recipe.toml"
    text = f'model = "m"\nout = "{tmp_path}/out"\n[collect]\nprompts = "self:4"\n'
    recipe.write_text(text)
    from dataclasses import asdict

    from jacobi_forcing.stages.recipe import read_recipe

    (done,) = read_recipe(recipe).rounds
    test = {"tokens_per_forward": 1.0, "nll": 0.5}
    found = {"before": test, "after": test, "log": [], "steps": 3, "best_checkpoint_step": None}
    files.write_json(done.model / "run.json", {"settings": asdict(done.trains[0])} | found)
    assert main(["force", str(recipe)]) == 0
    recipe.write_text(text + "[train]\nepochs = 3.0\n")
    assert "was begun with epochs = 1.0, now it is 3.0" in refused("force", recipe)


# The disk


def test_a_full_disk_keeps_what_is_finished(toy, prompts, tmp_path, refused, monkeypatch):
    whole = tmp_path / "whole"
    assert main(collecting(toy, prompts, whole)) == 0

    write_table, calls = files.pq.write_table, []

    def full_at_the_third(table, path, **options):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"PAR1 and a part of it")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_table(table, path, **options)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files.pq, "write_table", full_at_the_third)
        line = refused(*collecting(toy, prompts, out))
    third = Path(calls[2]).name.split(".")[1]
    assert f"{out}/{third}.parquet: cannot write: No space left on device" in line
    found = files_of(out)
    shards = {n: h for n, h in found.items() if n.endswith(".parquet")}
    assert len(shards) >= 2
    assert shards.items() <= files_of(whole).items()
    assert f"{third}.parquet" not in found
    assert f"{third}.journal" in found, "its prompts need not be decoded again"

    assert main(collecting(toy, prompts, out)) == 0
    assert {n: h for n, h in files_of(out).items() if n != "manifest.json"} == {
        n: h for n, h in files_of(whole).items() if n != "manifest.json"
    }


def test_a_disk_that_is_really_full(toy, tmp_path, refused):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        prompts = jsonl(tmp_path / "prompts.jsonl", PROMPTS * 3)
        line = refused(*collecting(toy, prompts, disk / "out"))
        assert "No space left on device" in line
        shards = {n: h for n, h in files_of(disk / "out").items() if n.endswith(".parquet")}
        assert shards
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert main(collecting(toy, prompts, disk / "out")) == 0
        assert main(collecting(toy, prompts, tmp_path / "whole")) == 0
        found, whole = files_of(disk / "out"), files_of(tmp_path / "whole")
        assert shards.items() <= found.items()
        assert len(found) == len(whole) == 22
        assert all(found[n] == whole[n] for n in whole if n != "manifest.json")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_made_is_refused(toy, prompts, tmp_path, refused):
    (tmp_path / "file").touch()
    line = refused(*collecting(toy, prompts, tmp_path / "file" / "out"))
    assert "cannot write" in line
    assert (tmp_path / "file").read_bytes() == b""


# For real


@pytest.mark.parametrize("what", ["model", "prompt"])
def test_through_the_real_command(what, toy, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "w2"}\n' + ("{" if what == "prompt" else ""))
    model = tmp_path / "no-model" if what == "model" else toy
    command = [sys.executable, "-m", "jacobi_forcing", *collecting(model, path, tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    said = result.stderr.splitlines()
    assert [line for line in said if not line.startswith("loading ")] == said[-1:]
    assert said[-1].startswith("jacobi collect: ")
    assert (f"{path}:2" if what == "prompt" else "no such folder") in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompts.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("decode", "--prompt", "w5", "--html"),
        ("demo", "--html"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_in_a_files_place_is_refused_before_the_work(arguments, tmp_path, refused):
    assert f"{tmp_path} is a folder; give the name of a file." in refused(*arguments, tmp_path)
