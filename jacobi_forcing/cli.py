"""The `jacobi` command: one subcommand per stage, its flags derived from the stage's dataclass."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from importlib import import_module

from jacobi_forcing import __version__, config
from jacobi_forcing.errors import JacobiForcingError

STAGES = {
    "collect": (
        config.CollectConfig,
        "jacobi collect --model tiny-base --prompts bundled:512 --block-size 16 --out traj/",
    ),
    "pack": (
        config.PackConfig,
        "jacobi pack --trajectories traj/ --window 8 --workers 2 --out packed/",
    ),
    "train": (
        config.TrainConfig,
        "jacobi train --model tiny-base --packed packed/ --learning-rate 1e-3 --max-steps 300 "
        "--out forced/",
    ),
    "force": (config.ForceConfig, "jacobi force recipes/tiny/force.toml"),
    "decode": (
        config.DecodeConfig,
        "jacobi decode --model tiny-forced --prompt @problem.txt --strategy window",
    ),
    "evaluate": (
        config.EvaluateConfig,
        "jacobi evaluate --model tiny-forced --problems bundled --strategy window "
        "--report report.json",
    ),
    "demo": (config.DemoConfig, "jacobi demo"),
}
_POSITIONAL = {"force": "recipe"}


def build_parser() -> argparse.ArgumentParser:
    """Make the parser: one flag per field of each stage's dataclass."""
    parser = argparse.ArgumentParser(
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
            epilog=f"Example: {example}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for setting in fields(config_type):
            _add_flag(stage, setting, positional=_POSITIONAL.get(name) == setting.name)
    return parser


def _add_flag(parser: argparse.ArgumentParser, setting, *, positional: bool) -> None:
    text = setting.metadata["help"].replace("%", "%%")
    if positional:
        parser.add_argument(setting.name, help=text)
        return
    flag = "--" + setting.name.replace("_", "-")
    if setting.type is bool:
        action = argparse.BooleanOptionalAction if setting.default else "store_true"
        parser.add_argument(flag, action=action, default=setting.default, help=text)
        return
    parser.add_argument(
        flag,
        type=setting.type,
        help=text if setting.default not in ("", MISSING) else f"{text} (%(type)s)",
        choices=setting.metadata["choices"],
        **({"required": True} if setting.default is MISSING else {"default": setting.default}),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; return 0, or 2 after an error the user can mend."""
    settings = vars(build_parser().parse_args(argv))
    stage = settings.pop("stage")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "accelerate", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Their bars and advice would drown ours; set before transformers is imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        parsed = STAGES[stage][0](**settings)
        import_module(f"jacobi_forcing.stages.{stage}").run(parsed)  # only now is torch imported
    except JacobiForcingError as error:
        print(f"jacobi {stage}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"jacobi {stage}: stopped; run the same command again to continue.", file=sys.stderr)
        return 130
    return 0
