"""The documentation site: its generated pages say what the code does, its figures are real."""

import argparse
import html
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from html.parser import HTMLParser
from pathlib import Path

import pytest

import jacobi_forcing
from jacobi_forcing.cli import STAGES, build_parser
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.models import load_model

ROOT = Path(__file__).parent.parent
DOCS, SITE = ROOT / "docs", ROOT / "docs" / "site"
sys.path.insert(0, str(SITE))

import commands  # noqa: E402
import figures  # noqa: E402
import pages  # noqa: E402
import record_figures  # noqa: E402

FENCED = re.compile(r"^( *)```.*?^\1```", flags=re.DOTALL | re.MULTILINE)


# ---- reference


def expected_default(value):
    if value is MISSING:
        return "**needed**"
    if value is True or value is False:
        return "on" if value else "off"
    return f"`{value}`" if value != "" else "none"


def test_every_command_has_a_page_with_every_setting_and_its_default():
    made, checked = commands.command_pages(), 0
    for stage, (config_type, example) in STAGES.items():
        page = made[f"reference/{stage}.md"]
        assert f"[`jacobi {stage}`]({stage}.md)" in made["reference/commands.md"]
        assert f"```\n{example}\n```" in re.sub(r" \\\n +", " ", page)
        lines = [line for line in page.splitlines() if line.startswith("| `")]
        rows = {line.split("`")[1]: line.split(" | ", 3)[1:] for line in lines}
        assert len(lines) == len(rows) == len(fields(config_type))
        for setting in fields(config_type):
            flag = "--" + setting.name.replace("_", "-")
            if setting.default is True:
                flag = flag.replace("--", "--[no-]")
            takes, default, meaning = rows.get(flag) or rows[setting.name.upper()]
            assert default == expected_default(setting.default), (stage, setting.name)
            assert meaning.removesuffix(" |").replace("\\", "") == setting.metadata["help"]
            for choice in filter(None, setting.metadata["choices"] or ()):
                assert f"`{choice}`" in takes
            checked += 1
    assert checked > 150


def test_flags_of_the_reference_are_those_of_the_command_line():
    (stages,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    for stage, parser in stages.choices.items():
        flags = {flag for action in parser._actions for flag in action.option_strings}
        page = commands.command_page(stage)
        listed = set(re.findall(r"^\| `(--[\w\[\]-]+)`", page, flags=re.MULTILINE))
        assert {flag.replace("[no-]", "") for flag in listed} == {
            flag for flag in flags if not flag.startswith(("-h", "--help", "--no-"))
        }


def test_the_api_pages_name_all_that_is_exported():
    text = "".join(commands.api_pages().values())
    named = re.findall(r"^::: ([\w.]+)\.(\w+)$", text, flags=re.MULTILINE)
    assert {name for _, name in named} | {"__version__"} == set(jacobi_forcing.__all__)
    for home, name in named:
        assert jacobi_forcing._HOMES[name] == home


def test_pages_are_made_without_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(SITE)!r}); import commands, figures, pages\n"
        "commands.command_pages(), commands.api_pages(), figures.load()\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr


# ---- figures


@pytest.fixture(scope="module")
def recorded():
    return json.loads(json.dumps(record_figures.record()))


def test_figures_are_what_the_code_gives_when_they_are_recorded_again(recorded):
    kept = figures.load()
    assert kept.keys() == recorded.keys()
    for name, figure in recorded.items():
        assert kept[name] == figure, f"{name} differs: run docs/site/record_figures.py"
    assert figures.PATH.stat().st_size < 60_000


def test_recorded_answers_are_those_of_the_models_one_token_at_a_time():
    kept = figures.load()
    ar = DecoderConfig(strategy="autoregressive")
    for run in [*kept["decode"]["runs"], kept["blocks"]]:
        model = load_model(run["model"])
        finished, _ = record_figures._decode(model, kept["problem"]["prompt"], ar)
        text = "".join(kept["texts"][token] for token in run["answer"][:-1])
        assert text == model.tokenizer.decode(finished.answer_ids, skip_special_tokens=True)
        choices = "held" if "held" in run["forwards"][0] else "choices"
        settled = [t for f in run["forwards"] for t in f[choices][: f["accepted"]]]
        assert settled == run["answer"]
    forced, base = kept["decode"]["runs"]
    assert 2 * len(forced["forwards"]) < len(base["forwards"])
    branches = [f for f in kept["blocks"]["forwards"] if max(f["path"], default=0) >= f["trunk"]]
    assert branches
    assert any(max(f["sources"]) > 0 for f in kept["blocks"]["forwards"])


class Elements(HTMLParser):
    """Names of a page's elements, and the text outside scripts."""

    def __init__(self, page):
        super().__init__()
        self.names, self.sources, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        taken = dict(attrs)
        loads = ("script", "img", "iframe", "source", "audio", "video", "embed", "object")
        if tag in loads or (
            tag == "link" and taken.get("rel") not in ("canonical", "next", "prev")
        ):
            self.sources += [taken[key] for key in ("src", "href", "data") if taken.get(key)]

    def handle_data(self, data):
        self.text += data


def test_a_page_gets_its_figures_with_tables_and_no_token_becomes_markup(monkeypatch):
    hostile = "</script><img src=x onerror=alert(1)>"
    kept = figures.load()
    kept["texts"] = [hostile] * len(kept["texts"])
    monkeypatch.setattr(figures, "load", lambda: kept)
    page = figures.put_in((DOCS / "figures.md").read_text())
    seen = Elements(page)
    assert seen.names.count("figure") == seen.names.count("table") == len(figures.TITLES) == 4
    assert seen.names.count("script") == 1
    assert "img" not in seen.names
    assert seen.names.count("tr") > 200
    assert "<!-- figure" not in page
    assert figures.put_in("<p>none</p>") == "<p>none</p>"


def test_the_masks_table_says_what_the_methods_drawing_says():
    table = html.unescape(figures.TABLES["mask"](figures.load()))
    rows = {
        (a, b): c
        for a, b, c in re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", table)
    }
    assert rows["noise-conditioned", "noisy 2"] == "prompt, noisy 0, noisy 1, itself, causally"
    assert rows["clean-context", "noisy 2"] == "prompt, clean 0, clean 1, itself, causally"
    assert rows["windowed", "noisy 3"] == "prompt, clean 0, clean 1, noisy 2, itself, causally"
    for variant in ("noise-conditioned", "clean-context", "windowed"):
        assert rows[variant, "clean 1"] == "prompt, clean 0, itself, causally"


# ---- Markdown


def test_lists_are_loosened_and_code_is_left_alone():
    code = "```\n- a\n  - b\ntext\n- c [D][T]\n```\n"
    assert pages.loosen(code).strip() == code.strip()
    text = "Rules:\n- one\n  goes on\n- two\n  - inner\n\nAfter [D][T] and `[D][T]`.\n"
    assert pages.loosen(text) == (
        "Rules:\n\n- one\n    goes on\n- two\n    - inner\n\nAfter [D]\\[T] and `[D][T]`.\n"
    )
    steps = "1. **Run.** As:\n   ```\n   jacobi demo\n   ```\n   It ends.\n2. Next.\n"
    assert pages.loosen(steps) == (
        "1. **Run.** As:\n\n    ```\n    jacobi demo\n    ```\n\n    It ends.\n\n2. Next.\n"
    )


def test_links_out_of_docs_lead_to_pages_that_show_the_files():
    text = "[a](../recipes/tiny/polish.sh) [b](tuning.md#x) [c](https://x.y) [d](../README.md)"
    assert pages.link_inside(text, "method.md") == (
        "[a](files/recipes/tiny/polish.sh.md) [b](tuning.md#x) [c](https://x.y) [d](index.md)"
    )
    assert pages.outside_links(text, "method.md") == {"recipes/tiny/polish.sh"}
    assert pages.link_inside("[r](../../README.md#results)", "a/b.md") == "[r](../results.md)"
    made = {"index.md", "results.md", *commands.command_pages(), *commands.api_pages()}
    assert set(pages.PAGES.values()) <= made
    assert all((ROOT / path.partition("#")[0]).exists() for path in pages.PAGES)
    assert "JACOBI" in pages.show_file(ROOT, "recipes/tiny/polish.sh")
    assert "## rayservice.yaml" in pages.show_file(ROOT, "examples/serving")


def test_results_are_the_readmes():
    readme = (ROOT / "README.md").read_text()
    page = pages.results_page(readme)
    tables = re.findall(r"<!-- table: .*?<!-- end -->", page, flags=re.DOTALL)
    assert tables
    assert all(table in readme for table in tables)
    assert "](docs/" not in page


def slugs(markdown):
    """Anchors of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCED.sub("", markdown), flags=re.MULTILINE)
    plain = [re.sub(r"[`*]|\[(.*?)\]\(.*?\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in plain}


def test_every_link_between_the_pages_resolves():
    made = commands.command_pages() | commands.api_pages()
    made["results.md"] = pages.results_page((ROOT / "README.md").read_text())
    written = {path.name: path.read_text() for path in DOCS.glob("*.md")}
    checked = 0
    for page, text in (written | made).items():
        folder = (DOCS / page).parent
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
            target, _, anchor = link.partition("#")
            if re.match(r"https?:|mailto:", link):
                continue
            path = os.path.normpath(folder / target) if target else str(DOCS / page)
            name = os.path.relpath(path, DOCS)
            # Pages made for the site alone are linked to by each other; GitHub has none of them.
            found = name in written or Path(path).exists() or (page in made and name in made)
            assert found, f"{page}: {link}"
            if anchor and name in written:
                assert anchor in slugs(written[name]), f"{page}: {link}"
            checked += 1
    assert checked > 60


def test_every_command_in_the_docs_has_valid_flags():
    parser, stages = build_parser(), set()
    for path in sorted(DOCS.glob("*.md")):
        for block in re.findall(r"```\w*\n(.*?)```", path.read_text(), flags=re.DOTALL):
            for line in re.sub(r" *\\\n *", " ", block).splitlines():
                if line.strip().startswith("jacobi "):
                    words = shlex.split(line.split(" #")[0])
                    stages.add(parser.parse_args(words[1:]).stage)
    assert stages >= {"collect", "pack", "train", "force", "decode", "evaluate", "tune", "serve"}


def test_the_first_page_has_the_readmes_quickstart():
    blocks = [
        re.search(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)[1]
        for path in (ROOT / "README.md", DOCS / "index.md")
    ]
    assert blocks[0] == blocks[1]
    assert "jf.answer" in blocks[0]


# ---- the built site


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings")),
    reason="needs the extra docs (mkdocs-material, mkdocstrings)",
)
def test_the_site_builds_strictly_and_loads_nothing_from_outside(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    found = sorted((tmp_path / "site").rglob("*.html"))
    assert len(found) > 30
    assert {f"{stage}.html" for stage in STAGES} <= {path.name for path in found}
    for path in found:
        sources = Elements(path.read_text()).sources
        assert sources
        assert not [s for s in sources if re.match(r"(\w+:)?//", s)], path
    for path in (tmp_path / "site" / "assets").rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", path.read_text()), path
    shown = (tmp_path / "site" / "figures.html").read_text()
    assert shown.count("data-figure=") == 4
    assert not list((tmp_path / "site").rglob("*.py"))


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def status(browser, name):
    return browser.execute_script(
        "return document.querySelector(`[data-figure=${arguments[0]}] [role=status]`).textContent",
        name,
    )


@pytest.mark.parametrize(("width", "scheme"), [(1200, "default"), (390, "slate")])
def test_figures_work_by_keyboard_at_any_width(browser, tmp_path, width, scheme):
    page = tmp_path / "figures.html"
    parts = {name: (DOCS / "assets" / name).read_text() for name in ("site.css", "figures.js")}
    body = figures.put_in("".join(f"<!-- figure: {n} --><!-- end -->" for n in figures.TITLES))
    page.write_text(
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<style>{parts['site.css']}</style><body data-md-color-scheme={scheme}>"
        f'<main class="md-typeset">{body}</main><script>{parts["figures.js"]}</script>'
    )
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    kept = figures.load()
    for name in figures.TITLES:
        before = status(browser, name)
        figure = browser.find_element("css selector", f"[data-figure={name}]")
        buttons = figure.find_elements("css selector", "button")
        assert all(button.accessible_name for button in buttons)
        slider = figure.find_element("css selector", "input[type=range]")
        slider.send_keys("\ue014")  # arrow right
        assert status(browser, name) != before
        figure.find_element("css selector", ".jf-steps button").send_keys("\ue012")  # arrow left
        assert status(browser, name) == before
    decode = browser.find_element("css selector", "[data-figure=decode]")
    base = kept["decode"]["runs"][1]
    decode.find_elements("css selector", ".jf-choice button")[1].click()
    assert f"of {len(base['forwards'])}" in status(browser, "decode")
    decode.find_element("css selector", "input").send_keys("\ue010")  # End
    assert f"So far {len(base['answer'])}" in status(browser, "decode")
    assert not browser.get_log("browser")
