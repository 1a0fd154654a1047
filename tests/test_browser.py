"""The page of an audit in a real Chromium: clicked, sorted, copied, tabbed through, and offline."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

import report_fixtures as made
from depthscale.report.page import write_page

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
# A browser that looks for updates or phones home would spoil the count of requests.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOW_TO_RUN = (
    "no Chromium: install chromium or google-chrome, or name one, "
    "DEPTHSCALE_CHROMIUM=/path/to/chrome python -m pytest -m browser"
)


def chromium() -> str | None:
    """Return the browser to use: the one that DEPTHSCALE_CHROMIUM names, or one on the PATH."""
    named = os.environ.get("DEPTHSCALE_CHROMIUM")
    if named:
        return shutil.which(named)
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    if path is None:
        pytest.skip(HOW_TO_RUN)
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the addresses of the pages under test, written once."""
    folder = tmp_path_factory.mktemp("pages")
    audits = {
        "chaotic": made.chaotic(names=("body.0", *made.MALICIOUS)),
        "healthy": made.healthy(),
        "hostile": made.without_theory(),
    }
    for name, audit in audits.items():
        write_page(audit, folder / f"{name}.html")
    return {name: (folder / f"{name}.html").as_uri() for name in audits}


@contextmanager
def opened(browser, address, *, refusals=False, **options):
    """Open a page offline; on leaving, assert that it asked for nothing and reported no error."""
    context = browser.new_context(**options)
    asked: list[str] = []
    troubles: list[str] = []

    def refuse(route):
        if route.request.url == address:
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    context.route("**/*", refuse)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    yield page
    context.close()
    assert asked == []
    assert all("Content Security Policy" in text for text in troubles) if refusals else not troubles


def column(page, key: str) -> list[str]:
    """Return the texts of a column of the table from top to bottom."""
    return page.evaluate(
        """key => {
            const heads = [...document.querySelectorAll("#layers thead tr:last-child th")];
            const k = heads.findIndex(head => head.dataset.key === key);
            const rows = [...document.querySelectorAll("#layers tbody tr")];
            return rows.map(row => row.cells[k].innerText);
        }""",
        key,
    )


@pytest.mark.parametrize("name", ["chaotic", "healthy", "hostile"])
def test_opens_offline_without_errors(browser, pages, name):
    with opened(browser, pages[name]) as page:
        assert page.locator("h1").is_visible()
        assert page.locator(".plot svg:visible").count() == 3


def test_policy_refuses_requests_and_added_scripts(browser, pages):
    with opened(browser, pages["healthy"], refusals=True) as page:
        refused = "fetch('https://example.org/').then(() => 'sent', error => error.name)"
        assert page.evaluate(refused) == "TypeError"
        page.evaluate(
            """() => {
                const script = document.createElement("script");
                script.append("document.title = 'ran'");
                document.body.append(script);
            }"""
        )
        assert page.title() != "ran"


def test_names_from_the_model_are_inert(browser, pages):
    with opened(browser, pages["hostile"]) as page:
        assert page.locator("h1, h2, h3").count() > 5
        assert page.locator("script").count() == 1
        assert page.locator("img").count() == 0
        assert page.locator("[onerror], [onmouseover]").count() == 0
        names = column(page, "name")
        assert names[0].startswith("<script>alert(1)</script>")
        assert names[1].startswith("</svg><img src=x onerror=alert(2)>")
        assert names[2].startswith("</style>{{ 7 * 7 }}")
        page.locator("#layers tbody th").nth(2).hover()
        assert page.locator("footer").is_visible()  # the page did not end early


def test_theme_follows_the_system_until_it_is_toggled(browser, pages):
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, pages["chaotic"], color_scheme="light") as page:
        light = page.evaluate(ground)
        button = page.get_by_role("button", name="Dark theme")
        assert button.get_attribute("aria-pressed") == "false"
        button.click()
        dark = page.evaluate(ground)
        assert dark != light
        assert button.get_attribute("aria-pressed") == "true"
        page.reload()
        assert page.evaluate(ground) == dark  # remembered
        button.click()
        assert page.evaluate(ground) == light
    with opened(browser, pages["chaotic"], color_scheme="dark") as page:
        assert page.evaluate(ground) == dark
        assert page.get_by_role("button", name="Dark theme").get_attribute("aria-pressed") == "true"
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_table_sorts_by_click_and_by_key(browser, pages):
    with opened(browser, pages["chaotic"]) as page:
        assert column(page, "index") == [str(k) for k in range(60)]
        head = page.locator('th[data-key="gradient"]')
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert page.locator("[aria-sort]").count() == 1
        values = page.evaluate(
            "[...document.querySelectorAll('#layers tbody tr')].map(row => +row.cells["
            "document.querySelector('th[data-key=gradient]').cellIndex].dataset.v)"
        )
        assert values == sorted(values)
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert "descending" in page.locator("#sorted").inner_text()
        page.locator('th[data-key="name"] button').click()
        names = column(page, "name")
        bodies = [name.split()[0] for name in names if name.startswith("body.")]
        assert bodies == sorted(bodies, key=lambda name: int(name.split(".")[1]))  # as numbers
        page.locator('th[data-key="index"] button').focus()
        page.keyboard.press("Space")
        assert column(page, "index") == [str(k) for k in range(60)]


def test_missing_numbers_sort_last_both_ways(browser, pages):
    with opened(browser, pages["hostile"]) as page:
        head = page.locator('th[data-key="dead"] button')
        for _ in range(2):
            head.click()
            assert column(page, "dead")[-1] == "–"


@pytest.mark.parametrize("allowed", [True, False])
def test_values_of_a_fix_are_copied(browser, pages, allowed):
    permissions = ["clipboard-read", "clipboard-write"] if allowed else []
    with opened(browser, pages["chaotic"], permissions=permissions) as page:
        if not allowed:
            page.evaluate(
                "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
            )
        page.get_by_role("button", name="Copy the values of fix 1").click()
        button = page.locator("[data-copy=finding-1-code]")
        page.wait_for_function(
            "element => element.innerText === 'Copied'", arg=button.element_handle()
        )
        expected = "sigma_w = 1.0127345678901234\nsigma_b = 0.05"
        if allowed:
            assert page.evaluate("navigator.clipboard.readText()") == expected
        else:
            assert page.evaluate("getSelection().toString()") == expected


def test_details_open_by_key(browser, pages):
    with opened(browser, pages["chaotic"]) as page:
        text = page.locator("#model pre")
        assert not text.is_visible()
        page.locator("#model summary").focus()
        page.keyboard.press("Enter")
        assert text.is_visible()
        assert "Linear(256, 256)" in text.inner_text()


def test_keyboard_reaches_everything_in_reading_order(browser, pages):
    with opened(browser, pages["chaotic"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["y"] >= 0  # it shows once it has the focus
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "verdict"
    with opened(browser, pages["chaotic"]) as page:
        tops, seen = [], []
        for _ in range(80):
            page.keyboard.press("Tab")
            place = page.evaluate(
                """() => {
                    const focus = document.activeElement;
                    if (focus === document.body) return null;
                    const box = focus.getBoundingClientRect();
                    const outline = getComputedStyle(focus).outlineStyle;
                    return [box.top + scrollY, focus.tagName, outline, focus.className];
                }"""
            )
            if place is None:
                break
            tops.append(place[0])
            seen.append(place[1])
            assert place[2] != "none", place
        assert {"A", "BUTTON", "PRE", "SUMMARY", "DIV"} <= set(seen)
        assert seen.count("A") >= 5
        # The table scrolls inside itself, and its header stays: elsewhere focus only moves down.
        below = [top for top, tag in zip(tops, seen, strict=True) if tag in ("PRE", "SUMMARY")]
        assert below == sorted(below)


def test_flag_shows_beside_a_long_name_on_a_phone(browser, pages):
    with opened(browser, pages["hostile"], viewport={"width": 390, "height": 800}) as page:
        flag = page.locator("#layers .flag")
        box, table = flag.bounding_box(), page.locator(".scroll").bounding_box()
        assert table["x"] <= box["x"]
        assert box["x"] + box["width"] <= table["x"] + table["width"]
        heights = page.evaluate(
            "[...document.querySelectorAll('#layers tbody tr')].map(row => row.offsetHeight)"
        )
        assert max(heights) - min(heights) <= 1


def test_link_of_a_flag_leads_to_its_finding(browser, pages):
    with opened(browser, pages["chaotic"]) as page:
        page.locator("#layers .flag").first.click()
        target = page.evaluate("location.hash")
        assert page.locator(target).is_visible()
        assert page.locator(target).evaluate("e => e.getBoundingClientRect().top") < 900


@pytest.mark.parametrize("name", ["chaotic", "hostile"])
def test_fits_every_width(browser, pages, name):
    with opened(browser, pages[name]) as page:
        for width in (320, 390, 641, 768, 897, 993, 1280, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            # One drawing of each figure shows, and its text is neither tiny nor huge there.
            sizes = page.evaluate(
                """[...document.querySelectorAll(".plot svg")].filter(svg => svg.clientWidth > 0)
                    .map(svg => 13 * svg.clientWidth / svg.viewBox.baseVal.width)"""
            )
            assert len(sizes) == 3
            assert min(sizes) >= 9.0, (width, sizes)
            assert max(sizes) <= 21.0, (width, sizes)


def test_pointing_at_a_figure_reads_the_layer_out(browser, pages):
    with opened(browser, pages["healthy"], viewport={"width": 1280, "height": 900}) as page:
        svg = page.locator(".plot.eps svg:visible")
        box = svg.bounding_box()
        svg.hover(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
        text = page.locator(".plot.eps .readout").inner_text()
        assert text.startswith("layer ")
        assert "two inputs" in text
        assert "two masks" in text
        assert page.locator(".plot.gradient .readout").inner_text().startswith("layer ")
        page.locator("h1").hover()
        assert page.locator(".plot.eps .readout").inner_text() == ""


def test_reads_without_script(browser, pages):
    with opened(browser, pages["chaotic"], java_script_enabled=False) as page:
        assert page.locator("h1").is_visible()
        assert page.locator("#layers tbody tr").count() == 60
        assert page.locator("[data-copy]:visible").count() == 0
        assert page.locator("#theme:visible").count() == 0


def test_figures_and_controls_have_names(browser, pages):
    with opened(browser, pages["chaotic"]) as page:
        assert page.get_by_role("img", name="Misalignment of two inputs").count() == 1
        assert page.get_by_role("img", name="Gradient that reaches").count() == 1
        assert page.get_by_role("region", name="Table of layers").count() == 1
        assert page.get_by_role("navigation", name="Sections").count() == 1
        unnamed = page.evaluate(
            """[...document.querySelectorAll("button, a, summary")]
                .filter(e => !(e.innerText || e.ariaLabel || "").trim()).length"""
        )
        assert unnamed == 0


def test_prints_on_paper(browser, pages, tmp_path):
    with opened(browser, pages["chaotic"]) as page:
        page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
        assert (tmp_path / "report.pdf").stat().st_size > 20_000
        page.emulate_media(media="print")
        assert not page.locator("#theme").is_visible()
        assert page.locator(".plot svg:visible").count() == 3
