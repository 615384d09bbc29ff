"""What pages are made of: a template, the style they share, and data that cannot become markup.

Everything a model or tokenizer said reaches a page as escaped HTML, or as JSON without any `<`,
which the page's script turns into text nodes: no token can become markup.
"""

import json
import re
from importlib.resources import files
from typing import Any


def fill(name: str, values: dict[str, str]) -> str:
    """Make a page of this folder's template `name`.

    Every {{name}} is replaced in one pass, so that a value that looks like one stays as it is;
    {{style}} is style.css.
    """
    values = values | {"style": _read("style.css").rstrip("\n")}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _read(name))


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in, nor open a comment."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII: no raw line separators either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return files("jacobi_forcing.drawing").joinpath(name).read_text(encoding="utf-8")
