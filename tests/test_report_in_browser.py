"""The page about an experiment in a real browser: Debian's Chromium, without a window and without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from reported import add_trials, make_reported, options

from search.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><script>window.harm=1</script><img src=x onerror='window.harm=2'><b>bold</b>"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="there is no playwright: pip install '.[dev]'"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search at its end and 60 trials more, among them one of a stranger."""
    experiment = make_reported(tmp_path_factory.mktemp("reported") / "searched")
    kinds = {
        "model": options("customnet"),
        "lr": json.dumps({"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0}}),
    }
    more = [
        {"params": {"model": 0, "lr": (number + 1) / 100}, "distributions": kinds, "value": 0.3 + number / 1000}
        | {"intermediate_values": {"1": 0.3 + number / 1000}}
        for number in range(59)
    ]
    hostile = {HOSTILE: options(HOSTILE), "model": options(HOSTILE)}
    strange = {"params": {HOSTILE: 0, "model": 0}, "distributions": hostile, "value": 0.1}
    add_trials(experiment, [*more, strange | {"intermediate_values": {"1": 0.1}}])
    write_report(experiment)
    return experiment.report


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Opened:
    """The page in a tab of its own, with all that the browser complained about and asked for."""

    def __init__(self, browser: Any, report: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **context})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)

    def cells(self, column: int) -> list[str]:
        return self.page.locator(f"#trials-table tbody tr > :nth-child({column})").all_inner_texts()

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)


@pytest.fixture(scope="module")
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    opened = Opened(browser, report)
    yield opened
    opened.context.close()


def test_the_page_opens_without_complaint_or_request(opened: Opened, report: Path) -> None:
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    assert opened.page.title() == "searched: a search on synthetic"
    charts = opened.page.locator("[data-chart]")
    assert charts.count() == opened.page.locator("[data-chart] svg.main-svg:first-child").count() > 15
    assert opened.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_nothing_of_a_stranger_ran(opened: Opened) -> None:
    assert opened.value("window.harm === undefined && document.querySelectorAll('img[src=x]').length === 0")
    assert HOSTILE[:20] in opened.value("document.body.innerText")
    ticks = opened.page.locator("[data-chart^=slice-] .xtick").all_text_contents()
    assert any("</script><script" in tick for tick in ticks)
    texts = opened.value("document.querySelector('[data-chart=history]').data.flatMap((trace) => trace.text ?? [])")
    strange = [text for text in texts if "script" in text]
    assert strange
    assert {tag for text in strange for tag in re.findall("<[^>]*>", text)} == {"<b>", "</b>", "<br>"}


def test_the_table_sorts_by_its_headings_with_the_keyboard(opened: Opened) -> None:
    heading = opened.page.locator("#trials-table thead th", has_text="lr")
    assert heading.get_attribute("aria-sort") == "none"
    heading.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    column = 1 + opened.page.locator("#trials-table thead th").all_inner_texts().index("lr")
    rates = [float(text) for text in opened.cells(column)]
    assert len(rates) == 50
    assert rates == sorted(rates)
    opened.page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert float(opened.cells(column)[0]) >= max(rates)
    assert opened.page.locator("#trials-table [aria-sort=descending]").count() == 1
    assert "sorted by lr, descending" in opened.page.locator("#shown").inner_text()
    opened.page.get_by_role("button", name="Next 50").click()
    assert "51 to 74 of 74" in opened.page.locator("#shown").inner_text()
    assert opened.cells(column)[-1] == ""


@pytest.mark.parametrize(
    ("words", "state", "holds"),
    [
        ("model=resnet18", "", lambda row: row[8] == "resnet18"),
        ("lr>0.3 lr<=0.4", "", lambda row: 0.3 < float(row[9]) <= 0.4 if row[9] else False),
        ("best_epoch=1 value>0.34 last_epoch<2", "", lambda row: row[3] == row[5] == "1" and float(row[2]) > 0.34),
        ("", "failed", lambda row: row[1] == "failed"),
        ("keyerror", "", lambda row: "KeyError" in row[-1]),
        ("nothing-has-this", "", lambda row: False),
    ],
)
def test_the_table_filters(opened: Opened, words: str, state: str, holds: Any) -> None:
    opened.page.get_by_label("Filter", exact=True).fill(words)
    opened.page.get_by_label("State").select_option(state)
    shown = [row.split("\t") for row in opened.page.locator("#trials-table tbody tr").all_inner_texts()]
    data = opened.value("""async () => {
        const bytes = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
        const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        return (await new Response(stream).json()).rows;
    }""")
    lr = opened.page.locator("#trials-table thead th").all_inner_texts().index("lr")
    reordered = [[*row[:9], row[lr], *row[10:]] for row in data]
    wanted = sorted(row[0] for row in reordered if holds(row))
    assert sorted(row[0] for row in shown) == wanted
    assert bool(wanted) == (words != "nothing-has-this")
    opened.page.get_by_label("Filter", exact=True).fill("")
    opened.page.get_by_label("State").select_option("")


def test_a_condition_on_no_column_is_told(opened: Opened) -> None:
    box, said = opened.page.get_by_label("Filter", exact=True), opened.page.locator("#shown")
    box.fill("learning_rate>0.1")
    assert said.inner_text().startswith("Trials shown: none (74 in all)")
    assert said.inner_text().endswith(". There is no column learning_rate.")
    box.fill("")
    assert "no column" not in said.inner_text()


def test_hovering_a_point_shows_its_trial(opened: Opened) -> None:
    chart = opened.page.locator("[data-chart=history]")
    chart.scroll_into_view_if_needed()
    point = chart.locator(".scatterlayer .trace .points path").first
    box = point.bounding_box()
    opened.page.mouse.move(box["x"] - 30, box["y"] + 30)
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    label = chart.locator(".hoverlayer .hovertext")
    label.wait_for(timeout=10_000)
    assert re.search(r"trial \d+.*(complete|pruned).*val_accuracy 0\.\d+ in epoch", label.text_content())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: Path, scheme: str) -> None:
    axe = Path(str(find_spec("axe_playwright_python").submodule_search_locations[0])) / "axe.min.js"  # type: ignore[union-attr,index]
    opened = Opened(browser, report, color_scheme=scheme)
    opened.value("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    opened.value(axe.read_text())
    found = opened.value("axe.run(document, {resultTypes: ['violations']})")
    opened.context.close()
    assert len(found["passes"]) > 20
    serious = [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_dark_page_is_dark_with_its_charts_and_pictures(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, color_scheme="dark")
    colours = [
        opened.value("getComputedStyle(document.body).backgroundColor"),
        opened.value("document.querySelector('[data-chart=history] .main-svg').style.background"),
    ]
    for colour in colours:
        assert max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 60
    assert opened.value("document.images[0].currentSrc === document.querySelector('picture source').srcset")
    opened.page.emulate_media(color_scheme="light")
    light = "[data-chart=history] .main-svg[style*='rgb(255, 255, 255)']"
    opened.page.wait_for_selector(light, state="attached", timeout=30_000)
    assert opened.complaints == []
    opened.context.close()


def test_a_phone_scrolls_down_only(browser: Any, report: Path) -> None:
    phone = {"width": 360, "height": 740}
    opened = Opened(browser, report, viewport=phone, is_mobile=True, has_touch=True)
    assert opened.value("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [360, 360]
    assert opened.value(
        "[...document.querySelectorAll('.item')].every(item => item.getBoundingClientRect().right <= 360)"
    )
    opened.context.close()


def test_a_printed_page_has_all_of_it_within_the_paper(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, color_scheme="dark")
    printed = opened.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", printed)) < 60
    opened.page.emulate_media(media="print")
    assert opened.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    opened.context.close()


def test_without_scripts_the_page_still_tells_it_in_words(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "need JavaScript" in page.locator("noscript").inner_text()
    assert "won: " in page.locator("header").inner_text()
    assert page.get_by_text("Precision, recall and F1 of each class, with 95 % intervals").count() > 0
    context.close()
