import importlib
import shlex
import signal
import subprocess
import sys
from dataclasses import MISSING, fields

import pytest

from jacobi_forcing import __version__, cli, stop

STAGES = list(cli.STAGES)


def flags_of(stage):
    """The parser's actions of a stage, by setting name."""
    stages = next(a for a in cli.build_parser()._actions if a.dest == "stage")
    return {a.dest: a for a in stages.choices[stage]._actions if a.dest != "help"}


def needed_arguments(stage):
    config_type, _ = cli.STAGES[stage]
    needed = [f.name for f in fields(config_type) if f.default is MISSING]
    if stage == "force":
        return ["recipe.toml"]
    if stage == "compare":
        return ["base", "forced"]
    return [part for name in needed for part in (f"--{name.replace('_', '-')}", "x")]


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_is_a_flag_with_help_and_the_default_of_its_dataclass(stage):
    config_type, _ = cli.STAGES[stage]
    flags = flags_of(stage)
    assert set(flags) == {f.name for f in fields(config_type)}
    for setting in fields(config_type):
        action = flags[setting.name]
        assert setting.metadata["help"]
        assert action.help.startswith(setting.metadata["help"].replace("%", "%%"))
        assert action.required is (setting.default is MISSING)
        if setting.default is not MISSING and not isinstance(setting.default, bool | str):
            assert f"(default: {setting.default})" in action.help

    # What is not given is left to the dataclass.
    _, settings = cli.parse([stage, *needed_arguments(stage)])
    assert set(settings) == {f.name for f in fields(config_type) if f.default is MISSING}


@pytest.mark.parametrize("stage", STAGES)
def test_help_is_one_page_with_an_example_that_parses(stage, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([stage, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    _, example = cli.STAGES[stage]
    lines = example.splitlines()
    assert text.endswith("\n  ".join(["example:", *lines]) + "\n"), "each is copied as one line"
    for line in lines:
        parsed, _ = cli.parse(shlex.split(line)[1:])
        assert parsed == stage
    for noise in ("None", "(str)", "(default: )", "MISSING", "False"):
        assert noise not in text


def test_help_of_every_stage_needs_no_torch():
    script = (
        "import sys, contextlib, io\n"
        "from jacobi_forcing import cli\n"
        "for stage in cli.STAGES:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        try: cli.main([stage, '--help'])\n"
        "        except SystemExit as stop: assert stop.code == 0\n"
        "    assert 'example:' in out.getvalue()\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'rich', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_version_through_the_module():
    command = [sys.executable, "-m", "jacobi_forcing", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"jacobi-forcing {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("collect --model m --prompts p --out o --blok-size 4", "did you mean --block-size?"),
        ("collect --model m --prompts p --out o --block 4", "unknown argument --block"),
        ("decode --prompt hello world", "jacobi decode: unknown argument world"),
        ("collect --model m", "required: --prompts, --out"),
        ("train --model m --packed p --out o --epochs many", "--epochs: invalid float value"),
        ("decode --prompt hi --strategy greedy", "invalid choice: 'greedy'"),
        ("colect", "invalid choice: 'colect'"),
        ("", "STAGE"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_on_by_default_can_be_turned_off():
    assert cli.parse(["pack", *needed_arguments("pack"), "--no-solved-only"])[1]["solved_only"] is (
        False
    )


def test_a_bad_value_is_refused_before_torch_is_imported(capsys):
    given = ["collect", *needed_arguments("collect"), "--block-size", "1"]
    assert cli.main(given) == 2
    assert capsys.readouterr().err.startswith("jacobi collect: --block-size is 1, must be")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_stopped_says_by_what_and_how_to_go_on(stage, number, monkeypatch, capsys):
    module = importlib.import_module(f"jacobi_forcing.stages.{stage}")
    command = cli.STAGES[stage][1].splitlines()[0]
    before = [signal.getsignal(n) for n in stop.SIGNALS]

    def stopped(config):
        signal.raise_signal(number)
        raise AssertionError("it went on")

    monkeypatch.setattr(module, "run", stopped)
    assert cli.main(shlex.split(command)[1:]) == 128 + number
    line = capsys.readouterr().err
    assert line.startswith(f"jacobi {stage}: stopped by {signal.Signals(number).name}.")
    assert line.count("\n") == 1
    if stage in ("collect", "pack", "train", "average", "force", "evaluate", "tune"):
        goes_on = stage in ("collect", "train", "force", "evaluate")
        verb = "Continue" if goes_on else "Start again"
        assert line.endswith(f" {verb} with: {command}\n")
    assert [signal.getsignal(n) for n in stop.SIGNALS] == before


def test_a_signal_that_was_turned_off_stays_off(monkeypatch):
    """As nohup does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.stopping():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "a/file"), BrokenPipeError]
)
def test_trouble_with_the_machine_is_one_line_too(error, monkeypatch, capsys):
    from jacobi_forcing.stages import collect

    def fail(config):
        raise error

    monkeypatch.setattr(collect, "run", fail)
    assert cli.main(["collect", *needed_arguments("collect")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_too_little_memory_says_what_to_lower_and_other_defects_stay_defects(monkeypatch, capsys):
    import torch

    from jacobi_forcing.stages import collect

    errors = [torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore"), RuntimeError("bug")]

    def fail(config):
        raise errors.pop(0)

    monkeypatch.setattr(collect, "run", fail)
    assert cli.main(["collect", *needed_arguments("collect")]) == 2
    line = capsys.readouterr().err
    assert line == (
        "jacobi collect: CUDA out of memory. Tried 2 GiB. Lower --batch-size, or free memory.\n"
    )
    with pytest.raises(RuntimeError, match="bug"):
        cli.main(["collect", *needed_arguments("collect")])


def test_the_harness_without_its_package_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "jacobi_forcing.integrations.lm_eval", raising=False)
    with pytest.raises(SystemExit, match="2"):
        cli.lm_eval_main()
    assert "pip install 'jacobi-forcing[lm-eval]'" in capsys.readouterr().err
