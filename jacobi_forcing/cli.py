"""The `jacobi` command: one subcommand per stage, its flags derived from the stage's dataclass."""

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from jacobi_forcing import __version__, output
from jacobi_forcing import config as configs
from jacobi_forcing.errors import JacobiForcingError
from jacobi_forcing.logs import set_up_logging
from jacobi_forcing.stop import Stopped, stopping

STAGES = {
    "collect": (
        configs.CollectConfig,
        "jacobi collect --model tiny-base --prompts bundled:512 --block-size 16 --out traj/",
    ),
    "pack": (
        configs.PackConfig,
        "jacobi pack --trajectories traj/ --window 8 --workers 2 --out packed/",
    ),
    "train": (
        configs.TrainConfig,
        "jacobi train --model tiny-base --packed packed/ --learning-rate 1e-3 --max-steps 300 "
        "--out forced/",
    ),
    "average": (
        configs.AverageConfig,
        "jacobi average --models tiny-base,tiny-forced --weights 0.1,0.9 --out calmer/",
    ),
    "force": (
        configs.ForceConfig,
        "jacobi force recipes/stories260K/force.toml --model stories260K --out forced/",
    ),
    "decode": (
        configs.DecodeConfig,
        "jacobi decode --model tiny-forced --prompt @problem.txt --strategy window",
    ),
    "chat": (
        configs.ChatConfig,
        "jacobi chat --model forced/ --system 'Answer in one sentence.'",
    ),
    "evaluate": (
        configs.EvaluateConfig,
        "jacobi evaluate --model tiny-forced --problems bundled --strategy window --out results/\n"
        "jacobi evaluate --engine transformers --strategies prompt-lookup --out generate/",
    ),
    "compare": (
        configs.CompareConfig,
        "jacobi compare results/base results/forced --html comparison.html",
    ),
    "tune": (
        configs.TuneConfig,
        "jacobi tune --model forced/ --prompts prompts.jsonl --batch-size 16",
    ),
    "serve": (
        configs.ServeConfig,
        "jacobi serve --model tiny-forced --port 8000",
    ),
    "demo": (configs.DemoConfig, "jacobi demo"),
}
# What a stage that was stopped has kept, where it does not say so itself; and whether it goes on.
_KEPT = {
    "collect": ("Finished prompts are kept.", True),
    "pack": ("Nothing of it counts yet.", False),
    "train": ("Checkpoints that were written are kept.", True),
    "average": ("Nothing was written.", False),
    "force": ("Stages that are done are kept.", True),
    "evaluate": ("With --out, finished prompts are kept.", True),
    "tune": ("Nothing was written.", False),
}
# What to do with what a stage has written.
_NEXT = {
    "collect": "jacobi pack --trajectories {out} --out packed/",
    "pack": "jacobi train --model DIR --packed {out} --out forced/",
    "train": "jacobi evaluate --model {out} --original {model} --problems FILE --out results/",
    "average": "jacobi evaluate --model {out} --problems FILE --out results/",
    "tune": "jacobi decode --model {model} --prompt TEXT",
}
_POSITIONAL = {"force": "recipe", "compare": "reports"}
_AT_ONCE = ("decode", "chat")  # someone waits: the first line comes before torch is imported
_METAVARS = {int: "N", float: "X"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage around it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser: one flag per field of each stage's dataclass."""
    parser = _Parser(
        prog="jacobi",
        description="Make a causal language model decode several tokens per forward pass, exactly.",
        epilog="Start with: jacobi demo",
    )
    parser.add_argument("--version", action="version", version=f"jacobi-forcing {__version__}")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, (config_type, example) in STAGES.items():
        summary = config_type.__doc__.strip().splitlines()[0]
        stage = stages.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="\n  ".join(["example:", *example.splitlines()]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            # Only what is given becomes a setting: the config has the defaults, and knows them so.
            argument_default=argparse.SUPPRESS,
        )
        for setting in sorted(fields(config_type), key=lambda f: f.default is not MISSING):
            _add_flag(stage, setting, positional=_POSITIONAL.get(name) == setting.name)
    return parser


def _add_flag(parser: argparse.ArgumentParser, setting: Field, *, positional: bool) -> None:
    text = setting.metadata["help"].replace("%", "%%")
    flag = "--" + setting.name.replace("_", "-")
    if positional:
        many = "+" if setting.type == tuple[str, ...] else None
        parser.add_argument(setting.name, help=text, nargs=many, default=argparse.SUPPRESS)
    elif setting.default is MISSING:
        parser.add_argument(flag, type=setting.type, help=text, required=True)
    elif setting.type is bool:
        # What is on by default gets a --no-... flag too.
        action = argparse.BooleanOptionalAction if setting.default else "store_true"
        text += " (default: on)" if setting.default else ""
        parser.add_argument(flag, action=action, default=argparse.SUPPRESS, help=text)
    else:
        parser.add_argument(
            flag,
            type=setting.type,
            help=text if setting.default == "" else f"{text} (default: {setting.default})",
            choices=setting.metadata["choices"],
            metavar=_METAVARS.get(setting.type) if not setting.metadata["choices"] else None,
        )


def parse(argv: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    """Read the command line; return the stage and the settings given, or exit with 2."""
    parser = build_parser()
    known, unknown = parser.parse_known_args(argv)
    settings = vars(known)
    stage = settings.pop("stage")
    if unknown:
        flags = ["--" + f.name.replace("_", "-") for f in fields(STAGES[stage][0])]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        parser.exit(2, f"jacobi {stage}: unknown argument {unknown[0]}{hint}\n")
    return stage, settings


def lm_eval_main() -> None:
    """Run `jacobi-lm-eval`, or say what is missing."""
    output.prepare()
    try:
        from jacobi_forcing.integrations.lm_eval import main
    except ImportError as error:
        needed = f"needs {error.name}: pip install 'jacobi-forcing[lm-eval]'."
        print(f"jacobi-lm-eval: {needed}", file=sys.stderr)
        sys.exit(2)
    main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage.

    Returns:
        0; 2 after an error the user can mend; 1 where nobody could read what was printed, as after
        `| head -1`; 130 after Ctrl-C.
    """
    output.prepare()
    try:
        code = _main(argv)
    except SystemExit as stop:
        raise SystemExit(output.finish(stop.code)) from None
    except OSError as error:  # from argparse of Python 3.11.2, which later versions ignore
        code = output.unwritten(error)
    return output.finish(code)


def _main(argv: Sequence[str] | None) -> int:
    stage, settings = parse(argv)
    set_up_logging()
    config_type, _ = STAGES[stage]
    try:
        with stopping():
            config = config_type(**settings)
            _say_loading(stage, config)
            run = import_module(f"jacobi_forcing.stages.{stage}").run  # only now is torch imported
            run(config)
    except (JacobiForcingError, OSError) as error:
        if isinstance(error, BrokenPipeError) and output.is_cut_off():
            return 1
        print(f"jacobi {stage}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        text = str(error) or "out of memory."
        if "out of memory" not in text and "can't allocate memory" not in text:
            raise
        found = " ".join(text.splitlines()[0].split())
        has_batches = any(f.name == "batch_size" for f in fields(config_type))
        hint = "Lower --batch-size" if has_batches else "Use a smaller model"
        print(f"jacobi {stage}: {found} {hint}, or free memory.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return _stopped(stage, stop, argv)
    _say_next(stage, config)
    return 0


def _is_first_process() -> bool:
    """Whether this is the process of several, under torchrun, that speaks."""
    return os.environ.get("RANK", "0") == "0"


def _say_loading(stage: str, config: Any) -> None:
    """Show life before the imports, which take seconds."""
    if stage in _AT_ONCE:
        print(f"loading {config.model} ...", file=sys.stderr, flush=True)
    elif "torch" not in sys.modules and _is_first_process():
        print("loading PyTorch ...", file=sys.stderr, flush=True)


def _say_next(stage: str, config: Any) -> None:
    is_part = getattr(config, "check", "") or getattr(config, "shard", "1/1") != "1/1"
    if stage in _NEXT and not is_part and _is_first_process():
        names = {f.name: shlex.quote(str(getattr(config, f.name))) for f in fields(config)}
        print(f"next: {_NEXT[stage].format(**names)}", file=sys.stderr)


def _stopped(stage: str, stop: KeyboardInterrupt, argv: Sequence[str] | None) -> int:
    """Say what a stage that was stopped has kept, and how it goes on; return the exit status."""
    if not isinstance(stop, Stopped):
        stop = Stopped()
    words = [f"jacobi {stage}: stopped by {stop.name}."]
    if stage in _KEPT:
        kept, goes_on = _KEPT[stage]
        verb = "Continue" if goes_on else "Start again"
        words += [stop.kept or kept, f"{verb} with: {_command(argv)}"]
    if _is_first_process():
        print(*words, file=sys.stderr)
    return 128 + stop.number


def _command(argv: Sequence[str] | None) -> str:
    """Write the command line that was given."""
    is_module = Path(sys.argv[0]).parts[-2:] == ("jacobi_forcing", "__main__.py")
    start = ["python", "-m", "jacobi_forcing"] if is_module else ["jacobi"]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        num = os.environ["LOCAL_WORLD_SIZE"]
        start = ["torchrun", "--nproc-per-node", num, "-m", "jacobi_forcing"]
    return shlex.join([*start, *(sys.argv[1:] if argv is None else argv)])
