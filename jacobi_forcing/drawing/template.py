"""What pages are made of: a template, the head they share, and data that cannot become markup.

Everything a model or tokenizer said reaches a page as escaped HTML, or as JSON without any `<`,
which the page's script turns into text nodes: no token can become markup.
"""

import json
import re
from importlib.resources import files
from typing import Any


def fill(name: str, values: dict[str, str]) -> str:
    """Make a page of this folder's template `name`.

    Its {{head}} is head.html and style.css, and lets scripts run, and ask the page's own server,
    only where the page does. Every other {{name}} is replaced in one pass, so that a value that
    looks like one stays as it is.
    """
    template = _read(name)
    scripts = "; script-src 'unsafe-inline'" if "<script" in template else ""
    scripts += "; connect-src 'self'" if "fetch(" in template else ""
    template = template.replace("{{head}}\n", _read("head.html") + _read("style.css"))
    values = values | {"scripts": scripts}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def script_json(value: Any) -> str:
    """Write JSON that cannot end the script element it stands in, nor open a comment."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII: no raw line separators either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return files("jacobi_forcing.drawing").joinpath(name).read_text(encoding="utf-8")
