"""The server's page in a real browser: what it shows is what the decoder did."""

import shutil

import pytest
from test_serve import PROBLEM, TEMPLATE, offline, serving

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from jacobi_forcing.models import load_model  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"
)
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-forced")


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def look(browser, url, width=1200, dark=False):
    """Open the page at a width, and wait until it knows the model."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(url)
    wait(browser, lambda: by_id(browser, "model").text != "connecting")


def wait(browser, ready):
    WebDriverWait(browser, 30).until(lambda _: ready())


def by_id(browser, name):
    return browser.find_element(By.ID, name)


def ask(browser, text):
    """Type a prompt, answer it by keyboard, wait for the end; the status line."""
    prompt = by_id(browser, "prompt")
    prompt.clear()
    browser.execute_script("arguments[0].value = arguments[1]", prompt, text)
    prompt.send_keys(Keys.CONTROL, Keys.ENTER)
    wait(browser, lambda: "." in by_id(browser, "status").text.removesuffix("Answering."))
    return by_id(browser, "status").text


def test_two_panes_give_one_text_in_different_numbers_of_forwards(model, browser):
    expected = offline(model, PROBLEM, 200)
    with serving(model, width="full") as (_, url):
        for width, dark in ((1200, False), (390, True)):
            look(browser, url, width, dark)
            assert "tiny-forced" in by_id(browser, "model").text
            status = ask(browser, PROBLEM)
            texts = browser.execute_script(
                "return [...document.querySelectorAll('.text')].map(pane => pane.textContent)"
            )
            assert texts[0] == texts[1]
            assert texts[0].removesuffix("<|endoftext|>") == expected.text
            assert f"One token per forward: {len(expected.ids)} tokens in {len(expected.ids)}" in (
                status
            )
            wide, visible = browser.execute_script(
                "return [document.documentElement.scrollWidth, window.innerWidth]"
            )
            assert wide <= visible
            summary = browser.find_element(By.CSS_SELECTOR, ".panes details summary")
            summary.send_keys(Keys.ENTER)
            wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".panes table tr"))
            rows = browser.find_elements(By.CSS_SELECTOR, ".panes table tr")
            assert f"tokens in {len(rows)} forwards" in status
            settled = browser.find_elements(By.CSS_SELECTOR, ".panes td.accepted")
            assert len(settled) == len(expected.ids)
        requests = [entry["message"] for entry in browser.get_log("performance")]
        asked = [one for one in requests if '"Network.requestWillBeSent"' in one]
        assert len(asked) > 4
        assert all(url in one for one in asked)  # nothing from anywhere else
        assert browser.get_log("browser") == []


def test_a_chat_goes_on_and_errors_are_said(model, browser):
    model.tokenizer.chat_template = TEMPLATE
    try:
        with serving(model, api_key="secret") as (_, url):
            look(browser, url)
            assert "needs its key" in by_id(browser, "model").text
            assert browser.switch_to.active_element.get_attribute("id") == "key"
            by_id(browser, "key").send_keys("secret", Keys.TAB)
            wait(browser, lambda: "tiny-forced" in by_id(browser, "model").text)
            browser.execute_script("document.getElementById('compare').checked = false")
            ask(browser, PROBLEM.strip())
            said = [item.text for item in browser.find_elements(By.CSS_SELECTOR, "#said li")]
            assert PROBLEM.strip()[:40] in said[0]
            assert said[1].startswith("assistant")
            assert len(browser.find_elements(By.CSS_SELECTOR, ".panes section")) == 1
            ask(browser, "And now?")
            assert len(browser.find_elements(By.CSS_SELECTOR, "#said li")) == 4
            browser.execute_script("document.getElementById('top_p').value = 7")
            browser.execute_script("run()")
            wait(browser, lambda: by_id(browser, "problem").text)
            assert "top_p" in by_id(browser, "problem").text
    finally:
        model.tokenizer.chat_template = None


def test_what_a_model_says_is_text_and_never_markup(model, browser):
    """Tokens of a prompt-like answer are set as text, whatever they spell."""
    with serving(model) as (_, url):
        look(browser, url)
        browser.execute_script(
            "const pane = new Pane('window'); document.body.append(pane.section); pane.began = 0;"
            "pane.settle({iteration: 0, offset: 0, guesses: ['<i>x'], accepted: ['<b id=evil>'],"
            " tail: ['<i>x'], num_proposed: 1}); pane.section.querySelector('details').open = true;"
            "pane.drawGrid()"
        )
        assert not browser.find_elements(By.CSS_SELECTOR, "#evil, .grid i")
        assert "<b id=evil>" in browser.find_element(By.CSS_SELECTOR, "body > section .text").text
