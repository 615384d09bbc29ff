"""A mean of models is the mean of their weights, and only models of one kind have one."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from toys import save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.data.files import locked
from jacobi_forcing.models import load_model


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return [save_toy(folder / name, seed=seed) for seed, name in enumerate(("start", "trained"))]


def averaged(models, weights, out, *more):
    models = ",".join(map(str, models))
    arguments = ["--models", models, "--weights", weights, "--out", str(out)]
    return main(["average", *arguments, *more])


def test_every_weight_is_the_weighted_mean(pair, tmp_path):
    out = tmp_path / "mean"
    assert averaged(pair, "0.25, 0.75", out) == 0
    start, trained, mean = (load_file(path / "model.safetensors") for path in (*pair, out))
    assert mean.keys() == start.keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.25 * start[name] + 0.75 * trained[name])
        assert tensor.dtype == torch.float32
    assert not torch.equal(start["lm_head.weight"], trained["lm_head.weight"])
    load_model(str(out))
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["weights"] == "0.25, 0.75"
    assert len(record["inputs"]) == 2


def test_all_the_weight_on_one_model_gives_that_model(pair, tmp_path):
    assert averaged(pair, "0,1", tmp_path / "mean") == 0
    mean, trained = (load_file(p / "model.safetensors") for p in (tmp_path / "mean", pair[1]))
    assert all(torch.equal(mean[name], trained[name]) for name in trained)
    assert averaged(pair, "0,1", tmp_path / "half", "--dtype", "bfloat16") == 0
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("0.5", "--models names 2 and --weights 1"),
        ("0.5,0.6", "make 1 together"),
        ("-0.5,1.5", "from 0 to 1"),
        ("half,half", "must be numbers"),
        ("nan,1", "from 0 to 1"),
    ],
)
def test_weights_that_make_no_mean_are_refused(pair, weights, message, tmp_path, refused):
    arguments = ["--models", f"{pair[0]},{pair[1]}", f"--weights={weights}"]
    assert message in refused("average", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_another_kind_are_refused(pair, tmp_path, refused):
    wide = save_toy(tmp_path / "wide", intermediate_size=96)
    other = save_toy(tmp_path / "other")
    tokenizer = other / "tokenizer.json"
    swapped = (
        tokenizer.read_text().replace('"w5": 5', '"w5": 6', 1).replace('"w6": 6', '"w6": 5', 1)
    )
    assert swapped != tokenizer.read_text()
    tokenizer.write_text(swapped)
    arguments = ["--weights", "0.5,0.5", "--out", tmp_path / "out"]
    line = refused("average", "--models", f"{pair[0]},{wide}", *arguments)
    assert "other names or shapes" in line
    assert str(wide) in line
    line = refused("average", "--models", f"{pair[0]},{other}", *arguments)
    assert "another tokenizer" in line
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert averaged(pair, "0.5,0.5", tmp_path / "out") == 0  # a refusal leaves nothing in the way


def test_a_folder_with_another_mean_is_left_alone(pair, tmp_path, refused):
    out = tmp_path / "mean"
    assert averaged(pair, "0.5,0.5", out) == 0
    before = (out / "model.safetensors").read_bytes()
    line = refused("average", "--models", f"{pair[0]},{pair[1]}", "--weights", "0,1", "--out", out)
    assert "was begun with weights = '0.5,0.5'" in line
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("left", ["config.json", "model.safetensors"])
def test_a_model_that_was_not_made_there_is_left_alone(pair, left, tmp_path, refused):
    own = shutil.copytree(pair[0], tmp_path / "own")
    before = {path: path.read_bytes() for path in own.iterdir()}
    line = refused("average", "--models", f"{own},{pair[1]}", "--weights", "0.5,0.5", "--out", own)
    assert f"--out is {own}, which holds config.json of a model" in line
    assert {path: path.read_bytes() for path in own.iterdir()} == before
    rest = tmp_path / "rest"
    rest.mkdir()
    shutil.copy(own / left, rest)
    names = f"{pair[0]},{pair[1]}"
    line = refused("average", "--models", names, "--weights", "0.5,0.5", "--out", rest)
    assert f"which holds {left} of a model" in line
    assert [path.name for path in rest.iterdir()] == [left]


def test_a_mean_is_written_by_one_process_at_a_time(pair, tmp_path, refused):
    out = tmp_path / "mean"
    assert averaged(pair, "0.5,0.5", out) == 0
    models = f"{pair[0]},{pair[1]}"
    with locked(out / "settings.json"):
        line = refused("average", "--models", models, "--weights", "0.5,0.5", "--out", out)
    assert f"{out}: another process is at work in this folder" in line
    assert averaged(pair, "0.5,0.5", out) == 0
