"""What makes docs/*.md, which are written for GitHub, pages of the site.

GitHub and Python-Markdown disagree on lists: the one needs no blank line before a list and nests by
any indentation, the other wants both. Links that leave docs/ lead to a page that shows the file.
"""

import posixpath
import re
from pathlib import Path

FENCE = re.compile(r"^ *(```|~~~)")
ITEM = re.compile(r"^( *)([-*+]|\d+[.)])( +)(?=\S)")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FILES = "files"  # the folder of pages that show files outside docs/
# What has a page of its own: on GitHub a link leads to the file, on the site to its page.
PAGES = {
    "README.md": "index.md",
    "README.md#results": "results.md",
    "jacobi_forcing/config": "reference/commands.md",
    "jacobi_forcing/__init__.py": "reference/python.md",
}


def loosen(markdown: str) -> str:
    """Rewrite lists so that Python-Markdown reads what GitHub reads; code stays as it is."""
    written: list[str] = []
    levels: list[int] = []  # of the open list items: the column where their text begins
    in_fence = False
    for line in markdown.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        is_fence = bool(FENCE.match(line))
        item = None if in_fence else ITEM.match(line)
        is_blank_before = not written or not written[-1].strip()
        if line.strip() and not in_fence and (item or is_blank_before or is_fence):
            while levels and indent < levels[-1]:
                levels.pop()
        if not in_fence and not is_fence:
            line = _literal(line)
        if item:
            if not is_blank_before and not _follows_item(written):
                written.append("")
            written.append(" " * 4 * len(levels) + item[2] + " " + line[item.end() :])
            levels.append(item.end())
            continue
        if is_fence and not in_fence and not is_blank_before:
            written.append("")
        if levels and line.strip() and indent >= levels[-1]:
            line = " " * 4 * len(levels) + line[levels[-1] :]
        written.append(line)
        in_fence ^= is_fence
        if is_fence and not in_fence:
            written.append("")
    return "\n".join(written) + "\n"


def _literal(line: str) -> str:
    """Keep [D][T], a shape, from being a reference: outside code, as on GitHub, it is text."""
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(p if p.startswith("`") else p.replace("][", "]\\[") for p in parts)


def _follows_item(written: list[str]) -> bool:
    """Tell whether the paragraph that is being written began with a list item."""
    first = next((i for i in range(len(written), 0, -1) if not written[i - 1].strip()), 0)
    return bool(written[first:] and ITEM.match(written[first]))


def outside(link: str, page: str) -> str | None:
    """Give the repository path that a page's link leads to, if it leads out of docs/.

    Args:
        link: As written, relative to the page.
        page: The page's path below docs/.
    """
    target = link.partition("#")[0]
    if not target or re.match(r"[a-z][a-z0-9+.-]*:|/", target):
        return None
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path == "docs" or path.startswith("docs/") else path


def file_page(path: str) -> str:
    """Name the page that shows a file or folder of the repository."""
    return f"{FILES}/{path.rstrip('/')}.md"


def link_inside(markdown: str, page: str) -> str:
    """Lead links that leave docs/ to the pages that stand for those files, or show them."""

    def rewritten(match: re.Match) -> str:
        path = outside(match[2], page)
        if path is None:
            return match[0]
        anchor = match[2].partition("#")[2]
        target = PAGES.get(f"{path}#{anchor}") or PAGES.get(path) or file_page(path)
        return match[1] + posixpath.relpath(target, posixpath.dirname(page) or ".") + match[3]

    return LINK.sub(rewritten, markdown)


def outside_links(markdown: str, page: str) -> set[str]:
    """List the repository paths that a page links to and that no page stands for."""
    found = {outside(match[2], page) for match in LINK.finditer(markdown)}
    return {path for path in found if path is not None and path not in PAGES}


def show_file(root: Path, path: str) -> str:
    """Write the page that shows a file, or all files of a folder."""
    place = root / path
    shown = sorted(place.iterdir()) if place.is_dir() else [place]
    lines = [f"# {path}", ""]
    for each in shown:
        if not each.is_file():
            continue
        language = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".sh": "bash"}
        lines += [f"## {each.name}", ""] if place.is_dir() else []
        text = each.read_text(encoding="utf-8").rstrip()
        lines += [f"````{language.get(each.suffix, '')}", text, "````", ""]
    return "\n".join(lines)


def results_page(readme: str) -> str:
    """Make the page of results out of the README's section: its figures have one home.

    Links of the README become those of a page in docs/.
    """
    section = re.search(r"^## Results\n(.*?)(?=^## )", readme, flags=re.DOTALL | re.MULTILINE)[1]

    def moved(match: re.Match) -> str:
        link = match[2]
        if re.match(r"[a-z]+:|#", link):
            return match[0]
        inner = link.removeprefix("docs/") if link.startswith("docs/") else f"../{link}"
        return match[1] + inner + match[3]

    opening = (
        "What forcing bought the bundled pair, and a small model that was pretrained elsewhere. "
        "Tokens per forward carry over to other machines; seconds do not. "
        "Every table is written from a result file, named below it.\n"
    )
    more = (
        "## More\n\nEverything else that was measured, also what was slower or worse, is in the "
        "[log of experiments](experiments.md). How a figure is counted: [Evaluating]"
        "(evaluation.md#how-to-read-the-report). What the figures do not say: [Limits](limits.md)."
    )
    return f"# Results\n\n{opening}\n{LINK.sub(moved, section)}\n{more}\n"
