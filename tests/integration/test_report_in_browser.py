"""A report as people see it, in a real browser: at a desk, on a phone, in the dark, on paper, by keyboard, without script."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from runbooks.reports import html
from tests.browser import Browser, browsing
from tests.unit import postmortem
from tests.unit.hostile import infested

PAGES = ("diagnosed", "ran", "audit")
MANY = 10_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages by name; `long` has names that have no end, `many` has very many findings."""
    documents: dict[str, dict[str, Any]] = {name: getattr(postmortem, name)() for name in PAGES}
    documents["long"] = infested(postmortem.ran(), "sandbox_" * 60)
    documents["many"] = postmortem.many(MANY)
    folder = tmp_path_factory.mktemp("pages")
    for name, document in documents.items():
        (folder / f"{name}.html").write_text(html.render(document), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in documents}


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", [*PAGES, "long"])
def test_a_page_fits_asks_for_nothing_and_has_no_complaint(
    browser: Browser, shelf: dict[str, Path], name: str, width: int
) -> None:
    browser.open(shelf[name], width=width)
    browser.unfold()
    assert browser.asks("innerWidth") == width
    assert browser.asks("document.scrollingElement.scrollWidth") <= width
    assert browser.complaints() == []
    assert browser.asked() == [shelf[name].as_uri()]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)], ids=["desk", "phone in the dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(
    browser: Browser, shelf: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.open(shelf[name], width=width, dark=dark)
    browser.unfold()
    assert browser.asks("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert browser.violations() == []


def test_axe_is_really_asked(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><title>x</title><main><img src='data:,'></main>")
    browser.open(page)
    assert [found.partition(":")[0] for found in browser.violations()] == ["html-has-lang", "image-alt"]


def test_all_can_be_read_without_script(browser: Browser, shelf: dict[str, Path]) -> None:
    browser.open(shelf["ran"], script=False)
    browser.unfold()
    assert browser.asks("document.querySelectorAll('th button').length") == 0
    hidden = "[...document.body.querySelectorAll(':not(script, title, desc)')].filter((each) => !each.checkVisibility())"
    assert browser.asks(f"{hidden}.length") == 0
    assert browser.asks("document.querySelectorAll('.finding, tbody tr').length") > 40


def test_the_keyboard_unfolds_a_finding(browser: Browser, shelf: dict[str, Path]) -> None:
    browser.open(shelf["ran"], script=False)
    source = "document.querySelector('details.finding code')"
    assert browser.asks(f"{source}.checkVisibility()") is False
    browser.driver.find_element("css selector", "details.finding summary").send_keys(Keys.ENTER)
    assert browser.asks(f"{source}.checkVisibility()") is True


def test_the_keyboard_sorts_a_table_one_way_and_the_other(browser: Browser, shelf: dict[str, Path]) -> None:
    browser.open(shelf["ran"])
    cells = "[...document.querySelectorAll('#run tbody td:nth-child(2)')].map((cell) => cell.textContent)"
    head = "document.querySelector('#run th:nth-child(2)').ariaSort"
    button = browser.driver.find_element("css selector", "#run th:nth-child(2) button")
    assert browser.asks(head) is None
    button.send_keys(Keys.ENTER)
    assert browser.asks(head) == "ascending"
    assert browser.asks(cells) == ["sandbox_0b5e1f77", "sandbox_83963dd9", "sandbox_c2d4a901"]
    button.send_keys(Keys.SPACE)
    assert browser.asks(head) == "descending"
    assert browser.asks(cells) == ["sandbox_c2d4a901", "sandbox_83963dd9", "sandbox_0b5e1f77"]


def test_numbers_are_sorted_as_numbers(browser: Browser, shelf: dict[str, Path]) -> None:
    browser.open(shelf["diagnosed"])
    browser.unfold()
    for button in browser.driver.find_elements("css selector", "#metrics th:nth-child(2) button"):
        button.send_keys(Keys.ENTER)
    values = browser.asks(
        "[...document.querySelectorAll('#metrics td:nth-child(2)')].map((cell) => +cell.textContent)"
    )
    assert values == sorted(values)
    assert values[0] < 100 < values[-1]


def test_what_is_folded_is_printed(browser: Browser, shelf: dict[str, Path]) -> None:
    seen = (
        "[...new Set([...document.querySelectorAll('.finding code')].map((code) => code.checkVisibility()))]"
    )
    browser.open(shelf["ran"])
    assert browser.asks(seen) == [False]
    browser.open(shelf["ran"], paper=True, script=False)
    assert browser.asks(seen) == [True]


def test_the_script_unfolds_for_printers_that_do_not_and_folds_again(
    browser: Browser, shelf: dict[str, Path]
) -> None:
    browser.open(shelf["ran"])
    count = "document.querySelectorAll('details[open]').length"
    browser.asks("dispatchEvent(new Event('beforeprint'))")
    assert browser.asks(count) == browser.asks("document.querySelectorAll('details:not(.long)').length") > 0
    browser.asks("dispatchEvent(new Event('afterprint'))")
    assert browser.asks(count) == 0


def test_very_many_findings_open_at_once(browser: Browser, shelf: dict[str, Path]) -> None:
    assert shelf["many"].stat().st_size < 5_000_000
    browser.open(shelf["many"])
    there = browser.asks("document.querySelectorAll('.finding, #findings tbody tr').length")
    assert there == MANY
    milliseconds = browser.asks("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert 0 < milliseconds < 5_000
