"""MkDocs hooks: pages made from the code, GitHub's Markdown, figures, links out of docs/."""

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # the package's source, and our own parts

import commands  # noqa: E402
import figures  # noqa: E402
import pages  # noqa: E402


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the generated pages in the navigation, below the entries that name them."""
    reference = next(entry["Reference"] for entry in config.nav if "Reference" in entry)
    for entry in reference:
        if "Commands" in entry:
            entry["Commands"] = list(commands.command_pages())
        elif "Python" in entry:
            entry["Python"] = list(commands.api_pages())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and one for every file outside docs/ that a page links to."""
    made = commands.command_pages() | commands.api_pages()
    made["results.md"] = pages.results_page((ROOT / "README.md").read_text(encoding="utf-8"))
    written = {
        file.src_uri: file.content_string
        for file in files.documentation_pages()
        if not file.src_uri.startswith("site/")
    }
    for page, text in (written | made).items():
        for path in pages.outside_links(text, page):
            made[pages.file_page(path)] = pages.show_file(ROOT, path)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Make GitHub's Markdown the site's."""
    return pages.loosen(pages.link_inside(markdown, page.file.src_uri))


def on_page_content(content: str, **_: Any) -> str:
    """Put the figures in."""
    return figures.put_in(content)


@event_priority(-100)  # behind the search plugin, which writes the index
def on_post_build(config: MkDocsConfig) -> None:
    """Write the search index as a script, too: pages opened from disk can fetch no JSON."""
    index = Path(config.site_dir, "search", "search_index.json")
    text = f"var __index = {index.read_text(encoding='utf-8')}"
    index.with_suffix(".js").write_text(text, encoding="utf-8")
