import math
from pathlib import Path

import pytest

from jacobi_forcing.config import (
    AverageConfig,
    CollectConfig,
    DecodeConfig,
    DecoderConfig,
    DemoConfig,
    EvaluateConfig,
    PackConfig,
    ServeConfig,
    TrainConfig,
    from_mapping,
    joined,
    split,
)
from jacobi_forcing.decoding import Sampling
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.stages.recipe import read_recipe

NEEDED = {
    CollectConfig: {"model": "m", "prompts": "p", "out": "o"},
    PackConfig: {"trajectories": "t", "out": "o"},
    TrainConfig: {"model": "m", "packed": "p", "out": "o"},
    DecodeConfig: {"prompt": "p"},
    EvaluateConfig: {},
    DemoConfig: {},
}


@pytest.mark.parametrize("config_type", NEEDED)
def test_defaults_pass_their_own_checks(config_type):
    config = from_mapping(config_type, NEEDED[config_type], "here")
    assert config == config_type(**NEEDED[config_type])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blok_size": 4}, "here: unknown setting 'blok_size'. Did you mean 'block_size'?"),
        ({"zzz": 4}, "here: unknown setting 'zzz'. Known are: device, dtype"),
        ({"block_size": "4"}, "here: block_size is '4', needs a value of type int."),
        ({"block_size": 4.0}, "here: block_size is 4.0, needs a value of type int."),
        ({"block_size": True}, "here: block_size is True, needs a value of type int."),
        ({"model": 4}, "here: model is 4, needs a value of type str."),
        ({"trust_remote_code": 1}, "here: trust_remote_code is 1, needs a value of type bool."),
        ({"block_size": 1}, "here: --block-size is 1, must be at least 2"),
    ],
)
def test_mappings_are_read_strictly(settings, message):
    with pytest.raises(ConfigError) as error:
        from_mapping(CollectConfig, NEEDED[CollectConfig] | settings, "here")
    assert str(error.value).startswith(message)


def test_types_are_checked_in_python_too():
    with pytest.raises(ConfigError, match="block_size is '8', needs a value of type int"):
        DecoderConfig(block_size="8")
    with pytest.raises(ConfigError, match="top_p is None, needs a value of type float"):
        Sampling(top_p=None)
    with pytest.raises(ConfigError, match="presence-penalty is inf"):
        Sampling(presence_penalty=float("inf"))
    assert Sampling(presence_penalty=-2.0, temperature=1).temperature == 1


def test_missing_settings_are_named():
    with pytest.raises(ConfigError, match="here: missing setting prompts, out"):
        from_mapping(CollectConfig, {"model": "m"}, "here")


def test_an_int_is_good_enough_for_a_float():
    assert from_mapping(TrainConfig, NEEDED[TrainConfig] | {"epochs": 2}, "here").epochs == 2


# Every range and choice that a setting has: a value that breaks it.
WRONG = [
    (CollectConfig, "block_size", 1, "at least 2"),
    (CollectConfig, "block_size", 0, "at least 2"),
    (CollectConfig, "max_new_tokens", 0, "at least 1"),
    (CollectConfig, "batch_size", 0, "at least 1"),
    (CollectConfig, "shard_prompts", -3, "at least 1"),
    (CollectConfig, "self_prompt_tokens", 0, "at least 1"),
    (CollectConfig, "threads", -1, "from 0 to 1024"),
    (CollectConfig, "seed", -1, "from 0 to"),
    (CollectConfig, "seed", 2**32, "from 0 to"),
    (CollectConfig, "noise", "white", "one of text, vocabulary"),
    (CollectConfig, "dtype", "int8", "one of auto"),
    (CollectConfig, "model", "", "must not be empty"),
    (CollectConfig, "out", " ", "must not be empty"),
    (PackConfig, "window", 0, "at least 1"),
    (PackConfig, "copies", 0, "at least 1"),
    (PackConfig, "workers", 0, "at least 1"),
    (PackConfig, "max_length", 0, "at least 1"),
    (PackConfig, "min_noise_ratio", -0.1, "0 or more"),
    (PackConfig, "max_noise_ratio", 1.5, "<= 1"),
    (PackConfig, "schedule", "cosine", "one of progressive"),
    (PackConfig, "phase", "late", "one of zero"),
    (TrainConfig, "learning_rate", 0.0, "above 0"),
    (TrainConfig, "learning_rate", math.nan, "0 or more"),
    (TrainConfig, "learning_rate", math.inf, "0 or more"),
    (TrainConfig, "warmup_ratio", 1.0, "below 1"),
    (TrainConfig, "epochs", 0.0, "above 0"),
    (TrainConfig, "gradient_accumulation", 0, "at least 1"),
    (TrainConfig, "max_steps", -1, "0 or more"),
    (TrainConfig, "ar_weight", -1.0, "0 or more"),
    (TrainConfig, "eval_block_size", 1, "at least 2"),
    (TrainConfig, "eval_block_size", -4, "at least 2"),
    (TrainConfig, "mask", "causal", "one of noise-conditioned"),
    (TrainConfig, "eval_strategy", "beam", "one of autoregressive"),
    (DecodeConfig, "strategy", "beam", "one of autoregressive"),
    (DecodeConfig, "block_size", 1, "at least 2"),
    (EvaluateConfig, "block_size", 1, "at least 2"),
    (EvaluateConfig, "limit", -1, "0 or more"),
    (DemoConfig, "num_problems", -1, "0 or more"),
]


@pytest.mark.parametrize(("config_type", "name", "value", "rule"), WRONG)
def test_a_value_out_of_range_is_refused_by_flag_and_value(config_type, name, value, rule):
    with pytest.raises(ConfigError) as error:
        config_type(**(NEEDED[config_type] | {name: value}))
    text = str(error.value)
    assert "--" + name.replace("_", "-") in text
    assert str(value) in text
    assert rule in text
    assert "\n" not in text


def test_noise_ratios_that_go_down_are_refused():
    with pytest.raises(ConfigError, match=r"from 0\.8 to 0\.2"):
        PackConfig(trajectories="t", out="o", min_noise_ratio=0.8, max_noise_ratio=0.2)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"online_iterations": 3}, {"states": "online", "mask": "clean-context"}),
        ({"drafts_per_block": 2}, {"states": "online", "mask": "clean-context"}),
        ({"noise": "vocabulary"}, {"states": "online", "mask": "clean-context"}),
        ({"ar_weight_end": 2.0}, {"ar_weight_schedule": "linear"}),
        ({"lora_targets": "q_proj"}, {"lora_rank": 4}),
    ],
    ids=str,
)
def test_settings_of_a_training_that_would_do_nothing_are_refused(settings, remedy):
    [(name, value)] = settings.items()
    [needed, *_] = remedy
    with pytest.raises(ConfigError) as error:
        TrainConfig(**NEEDED[TrainConfig], **settings)
    for part in (f"--{name.replace('_', '-')} is {value}", f"--{needed.replace('_', '-')} "):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    TrainConfig(**NEEDED[TrainConfig], **settings, **remedy)


def test_copies_that_would_be_the_same_are_refused():
    for schedule in ("progressive", "reverse"):
        with pytest.raises(ConfigError, match=r"--copies is 2, .* Add --phase random"):
            PackConfig(**NEEDED[PackConfig], copies=2, schedule=schedule)
    PackConfig(**NEEDED[PackConfig], copies=2, phase="random")
    PackConfig(**NEEDED[PackConfig], copies=2, schedule="random")


def test_a_changed_config_remembers_what_was_given():
    config = ServeConfig(block_size=8)
    other = config.changed(port=0)
    assert (other.block_size, other.port) == (8, 0)
    assert config.given == {"block_size"}
    assert other.given == {"block_size", "port"}
    with pytest.raises(ConfigError, match="--replicas is 2, which needs --engine ray"):
        config.changed(replicas=2)


def test_checkpoints_between_evaluations_are_refused():
    given = {"packed": "p", "out": "o", "model": "m"}
    with pytest.raises(ConfigError, match="--save-steps 250 is no multiple of --eval-steps 500"):
        TrainConfig(**given, eval_steps=500, save_steps=250)
    assert TrainConfig(**given, save_steps=250).save_steps == 250


def test_the_command_line_goes_before_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "here"\nout = "there"\n[collect]\nprompts = "self:4"\n')
    (written,) = read_recipe(recipe).rounds
    assert (written.collect.model, written.model) == ("here", Path("there/round-1/model"))
    (given,) = read_recipe(recipe, {"model": "mine", "out": "forced"}).rounds
    assert (given.collect.model, given.trains[0].model) == ("mine", "mine")
    assert given.model == Path("forced/round-1/model")


def test_a_frozen_teacher_is_the_first_rounds_start_in_every_round(tmp_path):
    recipe = tmp_path / "recipe.toml"
    text = 'model = "m"\nout = "o"\n[collect]\nprompts = "self:4"\n[train]\n'
    frozen = ('ar_teacher = "frozen"', 'teacher = "frozen"')
    for setting, expected in (("", ""), *((line, "m") for line in frozen)):
        recipe.write_text(text + setting + "\n[[rounds]]\n[[rounds]]\n")
        first, second = read_recipe(recipe).rounds
        assert first.trains[0].frozen_model == ""
        assert second.trains[0].frozen_model == expected
        assert second.trains[0].model == "o/round-1/model"


@pytest.mark.parametrize(
    "names",
    [
        ["a"],
        ["a", "b c", "/d/e"],
        ["runs, today/x", "plain"],
        ['say "hi"', '"', " begins and ends "],
        ["a\nb", "c"],
    ],
)
def test_a_list_of_names_survives_being_one_text(names):
    assert split(joined(names)) == names
    config = PackConfig(trajectories=names, out="o")
    assert config.folders == names
    assert PackConfig(trajectories=config.trajectories, out="o").folders == names


def test_commas_split_and_an_existing_path_is_one_name(tmp_path):
    assert split("a, b ,c") == ["a", "b", "c"]
    assert split("a,") == ["a", ""]
    assert split('"a, b",c') == ["a, b", "c"]
    folder = tmp_path / "runs, today"
    assert len(split(str(folder))) == 2
    folder.mkdir()
    assert split(str(folder)) == [str(folder)]
    average = AverageConfig(models=[str(folder), "b"], weights=[0.25, 0.75], out="o")
    assert (average.names, average.numbers) == ([str(folder), "b"], [0.25, 0.75])


def test_a_list_in_a_recipe_is_a_list_and_a_folder_may_hold_commas(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'model = "m"\nout = "runs, today/x"\nmembers = 2\nmix_earlier = 1\n'
        "average = [0.5, 0.2, 0.3]\n"
        'collect.prompts = "p.jsonl"\nevaluate.strategies = ["window", "jacobi"]\n'
        'train.lora_rank = 4\ntrain.lora_targets = ["q_proj", "v_proj"]\n[[rounds]]\n[[rounds]]\n'
    )
    recipe = read_recipe(path)
    first, second = recipe.rounds
    assert second.pack.folders == [second.collect.out, first.collect.out]
    assert first.average.names == [config.out for config in first.trains]
    assert all(name.startswith("runs, today/x/") for name in first.average.names)
    assert recipe.average.names == ["m", str(first.model), str(second.model)]
    assert first.evaluate.measured == ["autoregressive", "window", "jacobi"]
    assert split(first.trains[0].lora_targets) == ["q_proj", "v_proj"]
    path.write_text('model = "m"\nout = "o"\ncollect.prompts = ["a.jsonl", "b.jsonl"]\n')
    with pytest.raises(ConfigError, match="prompts is"):
        read_recipe(path)


def test_a_recipe_may_begin_with_a_mark_and_may_not_nest_endlessly(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('\ufeffmodel = "m"\nout = "o"\ncollect.prompts = "p.jsonl"\n')
    assert read_recipe(path).model == "m"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(DataError, match="not valid TOML"):
        read_recipe(path)
