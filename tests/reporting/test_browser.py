"""The page of a run and the documentation in a real browser, as `make browser` runs them.

Needs the package playwright, and chromium on the path or as `playwright install chromium` brings
it; pictures of what was seen are left in runs/browser.
"""

import html.parser
import os
import pathlib
import shutil
import urllib.parse

import numpy as np
import pandas as pd
import pytest

from plasticity_jax.reporting import page

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SITE = pathlib.Path(os.environ.get("PLASTICITY_SITE", ROOT / "docs" / "_build"))
PICTURES = ROOT / "runs" / "browser"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
PAGES = ("index", "command_line", "benchmarks", "choosing", "results/barriers", "generated/flags")

# the contrast of an element's color with what is behind it, after WCAG 2.2
CONTRAST = """
(element, property) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  const clear = (one) =>
    /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(one).backgroundColor);
  while (behind.parentElement && clear(behind)) behind = behind.parentElement;
  const ground = clear(behind) ? "white" : getComputedStyle(behind).backgroundColor;
  const two = [light(getComputedStyle(element)[property]), light(ground)].sort((a, b) => b - a);
  return (two[0] + 0.05) / (two[1] + 0.05);
}
"""


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a window."""
    found = [path for name in ("chromium", "google-chrome") if (path := shutil.which(name))]
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # (it refuses root otherwise)
    with playwright.sync_playwright() as play:
        try:
            opened = play.chromium.launch(executable_path=next(iter(found), None), args=arguments)
        except playwright.Error as fault:
            pytest.skip(f"there is no chromium: {fault}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page of five arms, as a run leaves it."""
    random = np.random.default_rng(0)
    rows = [
        {"lane": 2 * arm + seed, "task": task, "seed": seed, "finite": True, "method": "none"}
        | {"learning_rate": 0.1 / (1 + arm), "online_accuracy": random.uniform(0.2, 0.9)}
        | {"hessian_top": 10 ** random.uniform(0, 4)}
        for arm, seed, task in np.ndindex(5, 2, 12)
    ]
    run = page.Run(
        "first", {"calls": [{"command": "python -m experiments.run", "commit": "abc"}]}, {}
    )
    about = page.About("Five rates", "64 examples.", "", "10 training runs.", [run], "@article{a}")
    shown = page.Shown("online_accuracy")
    path = tmp_path_factory.mktemp("report") / "report.html"
    made = page.page(pd.DataFrame(rows), ["method", "learning_rate"], shown, about)
    path.write_text(made, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser):
    """Opens a file; what it says on the console, and what it asks for beside itself, are faults."""
    pages, faults = [], []

    def once(path, size=None, scheme="light"):
        one = browser.new_page(viewport=size or DESK, color_scheme=scheme)
        pages.append(one)
        one.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        one.on("pageerror", lambda error: faults.append(str(error)))
        one.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url)
            ),
        )
        one.goto(path.as_uri())
        return one

    yield once
    for one in pages:
        one.close()
    assert faults == []


def keep(one, name):
    """Leaves a picture for somebody to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    one.screenshot(path=PICTURES / f"{name}.png")


def fits(one):
    """Whether nothing has to be scrolled sideways."""
    return one.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def least(one, selector, kind="color"):
    """The least contrast of the visible elements that a selector finds."""
    elements = [e for e in one.query_selector_all(selector) if e.is_visible()]
    assert elements, selector
    return min(one.evaluate(f"([e, p]) => ({CONTRAST})(e, p)", [e, kind]) for e in elements)


def tab_to(one, selector):
    """Presses the tabulator until an element has the focus."""
    for _ in range(60):
        one.keyboard.press("Tab")
        if one.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard does not get to {selector}")


def test_arms_are_switched_by_keyboard(report, opened):
    one = opened(report)
    tab_to(one, "#arm1")
    lines = "[...document.querySelectorAll('g.a{}')].map(g => getComputedStyle(g).display)"
    charts = one.evaluate("document.querySelectorAll('svg.chart').length")
    assert one.evaluate(lines.format(1)).count("inline") == charts > 1
    one.keyboard.press("Space")
    assert set(one.evaluate(lines.format(1))) == {"none"}
    assert set(one.evaluate(lines.format(0))) == {"inline"}
    one.keyboard.press("Space")
    assert set(one.evaluate(lines.format(1))) == {"inline"}
    tab_to(one, ".keys button[value=none]")
    one.keyboard.press("Enter")
    assert not any(
        one.evaluate("[...document.querySelectorAll('.keys input')].map(b => b.checked)")
    )


def test_focus_lights_an_arm_and_a_pointer_tells_a_value(report, opened):
    one = opened(report)
    tab_to(one, "#arm2")
    assert one.evaluate("document.querySelectorAll('g.arm.lit').length") > 0
    assert one.evaluate("[...document.querySelectorAll('g.arm.lit')].every(g => g.matches('.a2'))")
    chart = one.query_selector("svg.chart[data-box]")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    told = ""
    for share in np.linspace(0.1, 0.9, 30):  # from the top down, until it meets a line
        one.mouse.move(box["x"] + box["width"] / 2, box["y"] + share * box["height"])
        told = one.inner_text("#tip") or told
    assert " at task " in told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_legible(report, opened, scheme):
    one = opened(report, scheme=scheme)
    keep(one, f"report_{scheme}")
    for selector in ("p", "h1", "h2", "td", "th", ".quiet", "li", "label", "pre", "button"):
        assert least(one, selector) >= 4.5, selector
    assert least(one, "svg.chart text", "fill") >= 4.5
    assert least(one, "g.arm .line", "stroke") >= 2  # (as wide as two points, and named by dashes)


def test_a_report_fits_a_phone(report, opened):
    one = opened(report, PHONE)
    keep(one, "report_phone")
    assert fits(one)


def test_a_reader_of_the_screen_is_told_everything(report, opened):
    one = opened(report)
    tree = one.context.new_cdp_session(one).send("Accessibility.getFullAXTree")["nodes"]
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    ]
    roles = {role for role, _ in nodes}
    assert {"heading", "checkbox", "image", "table", "navigation", "region", "button"} <= roles
    for role, name in nodes:
        if role in ("checkbox", "image", "button", "navigation", "region", "heading"):
            assert name.strip(), role
    assert any("from " in name for role, name in nodes if role == "image")  # curves in words
    assert one.get_attribute("html", "lang") == "en"


# The documentation


class Links(html.parser.HTMLParser):
    """The places that a page has and those that it leads to."""

    def __init__(self):
        super().__init__()
        self.places, self.targets = {""}, []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        self.targets += [found[name] for name in ("href", "src") if found.get(name)]


@pytest.fixture(scope="module")
def site():
    if not (SITE / "index.html").exists():
        pytest.skip("the documentation is not built: make docs")
    return SITE


def test_every_link_of_the_site_leads_somewhere(site):
    read = {}
    for path in site.rglob("*.html"):
        read[path] = Links()
        read[path].feed(path.read_text(encoding="utf-8"))
    assert len(read) > 80
    wrong = []
    for path, links in read.items():
        for target in links.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme:
                continue
            name = urllib.parse.unquote(parts.path)
            there = (path.parent / name).resolve() if name else path
            place = urllib.parse.unquote(parts.fragment)
            known = there in read and place in read[there].places
            if not (known or (there.is_file() and there.suffix != ".html")):
                wrong.append(f"{path.relative_to(site)}: {target}")
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_site_is_legible_and_fits(site, opened, name):
    for scheme in ("light", "dark"):
        one = opened(site / f"{name}.html", scheme=scheme)
        keep(one, f"site_{name.replace('/', '_')}_{scheme}")
        for selector in ("article h1", "article p, article pre"):
            assert least(one, selector) >= 4.5, (scheme, selector)
    one = opened(site / f"{name}.html", PHONE)
    keep(one, f"site_{name.replace('/', '_')}_phone")
    assert fits(one)
