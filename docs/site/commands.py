"""The reference pages, generated from the code: every command and its settings, the Python API.

Nothing here imports torch: a command's settings are the fields of its dataclass, and the API pages
only name what mkdocstrings then reads from the source.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from inspect import get_annotations
from typing import NamedTuple

import jacobi_forcing
from jacobi_forcing.cli import _POSITIONAL, STAGES

FOLDER = "reference"
# Where a command is explained and not only listed, and the words for it.
GUIDES = {
    "collect": ("force.md", "Force your model"),
    "pack": ("force.md", "Force your model"),
    "train": ("force.md", "Force your model"),
    "force": ("force.md", "Force your model"),
    "average": ("force.md", "Force your model"),
    "evaluate": ("evaluation.md", "Evaluating"),
    "compare": ("evaluation.md", "Evaluating"),
    "tune": ("tuning.md", "Tuning"),
    "serve": ("serving.md", "Serving"),
    "decode": ("force.md", "Force your model"),
    "chat": ("force.md", "Force your model"),
    "demo": ("index.md", "Start here"),
}
_TYPES = {int: "whole number", float: "number", str: "text", bool: "switch"}


class Setting(NamedTuple):
    """One setting of a command, as the command line has it."""

    name: str  # as in Python and recipes
    flag: str  # as on the command line
    takes: str  # its type, or its choices
    default: str  # Markdown
    meaning: str


def summary(config_type: type) -> str:
    """Give the first sentence of a dataclass: what the command does."""
    return config_type.__doc__.strip().splitlines()[0]


def settings(stage: str) -> list[tuple[type, list[Setting]]]:
    """List a command's settings under the dataclass that declares them, its own first."""
    config_type, _ = STAGES[stage]
    groups: dict[type, list[Setting]] = {}
    for kind in config_type.__mro__:
        groups[kind] = []
    for field in sorted(fields(config_type), key=lambda f: f.default is not MISSING):
        home = next(k for k in config_type.__mro__ if field.name in get_annotations(k))
        groups[home].append(_setting(field, _POSITIONAL.get(stage) == field.name))
    return [(kind, found) for kind, found in groups.items() if found]


def _setting(field: Field, positional: bool) -> Setting:
    flag = field.name.upper() if positional else "--" + field.name.replace("_", "-")
    choices = field.metadata["choices"]
    if choices:
        takes = ", ".join(f"`{choice}`" for choice in choices if choice)
    else:
        takes = _TYPES.get(field.type, "one or more texts")
    if field.type is bool and field.default:
        flag = flag.replace("--", "--[no-]")
    return Setting(field.name, flag, takes, _default(field), field.metadata["help"])


def _default(field: Field) -> str:
    if field.default is MISSING:
        return "**needed**"
    if field.type is bool:
        return "on" if field.default else "off"
    return f"`{field.default}`" if field.default != "" else "none"


def _cell(text: str) -> str:
    """Make a text fit into a table's cell, where nothing in it is markup."""
    for mark in ("\\", "|", "*", "_", "<", "["):
        text = text.replace(mark, "\\" + mark)
    return text


def command_page(stage: str) -> str:
    """Write the page of one command."""
    config_type, example = STAGES[stage]
    guide, words = GUIDES[stage]
    lines = [f"# jacobi {stage}", "", summary(config_type), ""]
    lines += ["```", example.replace(" --out", " \\\n    --out"), "```", ""]
    lines += [f"Explained in: [{words}](../{guide}). A recipe or Python writes `_` for `-`.", ""]
    for kind, found in settings(stage):
        own = kind is config_type
        title = "Settings of its own" if own else _title(kind)
        lines += [f"## {title}", ""]
        lines += [] if own else [summary(kind), ""]
        lines += ["| setting | takes | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{each.flag}` | {each.takes} | {each.default} | {_cell(each.meaning)} |"
            for each in found
        ]
        lines += [""]
    return "\n".join(lines)


def _title(kind: type) -> str:
    name = kind.__name__.removesuffix("Config")
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return words.strip().capitalize()


def commands_page() -> str:
    """Write the list of all commands."""
    lines = [
        "# Commands",
        "",
        "Every stage reads files and writes files ([which](../formats.md)); each is one command. "
        "These pages are made from the code: a setting has one home, with its default.",
        "",
        "| command | what it does |",
        "| --- | --- |",
    ]
    lines += [
        f"| [`jacobi {stage}`]({stage}.md) | {_cell(summary(config_type))} |"
        for stage, (config_type, _) in STAGES.items()
    ]
    return "\n".join([*lines, ""])


def command_pages() -> dict[str, str]:
    """Write all pages of commands, by their path in the site."""
    pages = {f"{FOLDER}/{stage}.md": command_page(stage) for stage in STAGES}
    return {f"{FOLDER}/commands.md": commands_page()} | pages


def exported() -> dict[str, dict[str, str]]:
    """Give what the package exports, with the module of each, by the room that it comes from."""
    rooms: dict[str, dict[str, str]] = {}
    for name, home in jacobi_forcing._HOMES.items():
        rooms.setdefault(home.split(".")[1], {})[name] = home
    return rooms


def api_pages() -> dict[str, str]:
    """Write the pages of the Python API, by their path: mkdocstrings fills them in."""
    pages = {}
    index = [
        "# Python",
        "",
        "What `import jacobi_forcing as jf` gives, read from the docstrings. A name is imported "
        "when it is first used.",
        "",
        "| name | from |",
        "| --- | --- |",
    ]
    for room, names in exported().items():
        pages[f"{FOLDER}/api-{room}.md"] = _api_page(room, names)
        index += [
            f"| [`jf.{name}`](api-{room}.md#{home}.{name}) | `{home}` |"
            for name, home in names.items()
        ]
    return {f"{FOLDER}/python.md": "\n".join([*index, ""])} | pages


def _api_page(room: str, names: Mapping[str, str]) -> str:
    lines = [f"# Python: {room}", "", f"What `jacobi_forcing` takes from its room `{room}`.", ""]
    for name, home in names.items():
        lines += [f"::: {home}.{name}", ""]
    return "\n".join(lines)
