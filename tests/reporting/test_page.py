"""The page of a run: whole, by itself, and with the numbers of its table."""

import html.parser
import re

import numpy as np
import pandas as pd
import pytest

from plasticity_jax.reporting import charts, page, panels, statistics, tables
from plasticity_jax.types import Metric

VOID = {"meta", "input"}
ABOUT = page.About(
    "Labels <again> & again",
    "64 examples.",
    "Differs from the paper: epochs 2 (80).",
    "4 training runs.",
    [
        page.Run(
            "first",
            {
                "versions": {"jax": "0.10"},
                "code_version": "abc+",
                "device": "2 x cpu",
                "data_source": "digits",
                "calls": [
                    {
                        "command": "python -m experiments.run --a=<b>",
                        "commit": "abc",
                        "dirty": True,
                        "started": "2026-01-01",
                        "ended": None,
                    }
                ],
            },
            {"name": "digits", "fingerprint": "f00d"},
        ),
        page.Run("old", {}, {}),
    ],
    "@article{a}",
)


def table(arms=3, seeds=2, tasks=6, probes=("hessian_top", "dormant_fraction")):
    random = np.random.default_rng(0)
    rows = []
    for arm, seed, task in np.ndindex(arms, seeds, tasks):
        row = {"lane": arm * seeds + seed, "task": task, "seed": seed, "finite": True}
        row |= {"method": "none", "learning_rate": 0.1 / (1 + arm)}
        row["online_accuracy"] = random.uniform(0.2, 0.9)
        row |= {probe: 10 ** random.uniform(0, 4) for probe in probes}
        rows.append(row)
    return pd.DataFrame(rows)


class Reader(html.parser.HTMLParser):
    """Elements in order, with whether each that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


ARMS = ["method", "learning_rate"]


@pytest.fixture(scope="module")
def made():
    return page.page(table(), ARMS, page.Shown("online_accuracy"), ABOUT)


def test_it_is_one_file_of_html_that_needs_no_other(made):
    reader = read(made)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.elements:
        assert not {"src", "href", "onload"} & set(attributes)
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids
    assert "http" not in made.replace("http-equiv", "")
    assert "@import" not in made
    assert "url(" not in made


def test_it_says_what_was_run_and_how_to_repeat_it(made):
    text = " ".join(read(made).text)
    for words in (
        "Labels <again> & again",
        "Differs from the paper: epochs 2 (80).",
        "python -m experiments.run --a=<b>",
        "2026-01-01 to a stop, commit abc, with files changed since",
        "f00d",
        "The command was not recorded.",
        "@article{a}",
        "An arm is a setting with all its seeds.",
        "With 2 seeds an arm the intervals are Student's",
        "Every measurement at the end",
    ):
        assert words in text, words


def test_every_arm_has_a_box_that_switches_it_off_and_every_chart_is_told_in_words(made):
    reader = read(made)
    boxes = [a for tag, a in reader.elements if tag == "input"]
    assert [box["id"] for box in boxes] == ["arm0", "arm1", "arm2"]
    for box in boxes:
        number = box["id"].removeprefix("arm")
        assert f"body:has(#arm{number}:not(:checked)) g.a{number}{{display:none}}" in made
    shown = [a for tag, a in reader.elements if tag == "svg" and a.get("class") == "chart"]
    assert len(shown) == 3
    assert all(chart["role"] == "img" for chart in shown)
    heads = [a for tag, a in reader.elements if tag == "th"]
    assert all(head["scope"] in ("col", "row") for head in heads)


def points(path):
    return np.array([point.split() for point in path[1:].split("L")], float)


@pytest.mark.parametrize(("column", "logarithmic"), [("online_accuracy", 0), ("hessian_top", 1)])
def test_lines_are_the_means(made, column, logarithmic):
    """What the axis says of a point of a line is the mean over seeds there."""
    place = {"online_accuracy": 0, "hessian_top": 1}[column]
    chart = re.search(rf'<svg class="chart" id="chart{place}".*?</svg>', made, re.DOTALL)
    assert chart
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', chart[0]))
    low, high = float(data["low"]), float(data["high"])
    left, top, width, height = map(float, data["box"].split())
    assert int(data["log"]) == logarithmic
    for arm, group in enumerate(re.findall(r'<g class="arm a\d+">.*?</g>', chart[0])):
        line = points(re.search(r'class="line" d="([^"]*)"', group)[1])
        tasks = 1 + (line[:, 0] - left) / width * (int(data["tasks"]) - 1)
        np.testing.assert_allclose(tasks, range(1, 7), atol=1e-3)
        part = 1 - (line[:, 1] - top) / height
        values = low * (high / low) ** part if logarithmic else low + (high - low) * part
        rows = statistics.arms(table(), ARMS).rows[arm]
        wanted = rows.groupby("task")[column].mean()
        np.testing.assert_allclose(values, wanted, rtol=0.02 if logarithmic else 5e-3)


def test_axes_have_round_ticks_within_their_ends():
    share = axis(0.0, 1.0, share=True)
    assert [word for _, word in share.ticks] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    decades = axis(0.5, 3000.0)
    assert decades.logarithmic
    assert [word for _, word in decades.ticks] == ["1", "10", "100", "1000"]
    flat = axis(3.0, 3.0)
    assert flat.low < 3 < flat.high
    assert all(flat.low - 1e-9 <= value <= flat.high + 1e-9 for value, _ in flat.ticks)
    assert 0 < axis(0.0, 0.0).place(0.0) < 1


@pytest.mark.parametrize("ends", [(0.999971, 0.99999), (-0.31, 0.4), (2e-13, 5e-13), (1e-12, 1e3)])
def test_no_two_ticks_have_one_word(ends):
    share = ends[0] > 0.9
    words = [word for _, word in axis(*ends, share=share).ticks]
    assert len(words) == len(set(words)) > 1
    read = [float(word.removesuffix("%")) for word in words]
    assert read == sorted(read)
    assert "-0" not in words


def axis(*values, share=False):
    """Of a line with these values."""
    made = table(arms=1, seeds=1, tasks=len(values), probes=()).assign(online_accuracy=values)
    ends = statistics.final(made, ARMS, "online_accuracy")
    lines = panels.lines(statistics.summary(made, ARMS), ends, pd.Series(["a"]), ARMS)
    about = Metric("online_accuracy", share=share)
    return charts.axis(about, lines, "t")


def test_chance_is_a_line_where_the_axis_has_it_and_is_told_anyway():
    def chart(chance):
        shown = page.Shown("online_accuracy", band="minmax", chance=chance)
        text = page.page(table(), ARMS, shown, ABOUT)
        reader = read(text)
        drawn = re.findall(r'class="chance" d="M[\d.]+ ([\d.]+)h', text)
        return text, " ".join(reader.text), [float(y) for y in drawn]

    text, words, (y,) = chart(0.5)
    assert "Dotted, where the axis has it: chance, 50.0 %." in words
    assert "Chance: 50.0 %." in words
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', text.partition('id="chart1"')[0]))
    low, high = float(data["low"]), float(data["high"])
    top, height = map(float, data["box"].split()[1::2])
    assert low + (high - low) * (1 - (y - top) / height) == pytest.approx(0.5, abs=1e-3)
    assert chart(0.01)[2] == []
    assert "Chance: 1.0 %." in chart(0.01)[1]
    assert "<body>" in text
    assert "hance" not in chart(None)[0].partition("</head>")[2]


def test_arms_are_compared_with_the_one_that_is_asked_for():
    usual, other = (
        page.page(table(), ARMS, page.Shown("online_accuracy", baseline=baseline), ABOUT)
        for baseline in (None, {"learning_rate": 0.05})
    )
    assert "minus learning_rate=0.1, points" in usual
    assert "minus learning_rate=0.05, points" in other
    assert " learning_rate=0.05 at the end: " in " ".join(read(other).text)
    with pytest.raises(ValueError, match="fits no arm"):
        page.page(table(), ARMS, page.Shown("online_accuracy", baseline={"method": "l2"}), ABOUT)


def test_one_task_one_seed_and_nothing_measured_are_drawn():
    made = table(arms=1, seeds=1, tasks=1).assign(dormant_fraction=np.nan)
    made["finite"] = made["finite"].astype(bool)
    text = page.page(made, ARMS, page.Shown("online_accuracy"), ABOUT)
    read(text)
    assert "<circle" in text
    assert "With fewer than 4 tasks nothing is said of falls." in text


def test_a_table_of_the_end_that_is_at_hand_gives_the_same_page(made):
    finals = tables.finals(table(), ARMS, tested=True)
    assert "p_holm" in finals
    assert page.page(table(), ARMS, page.Shown("online_accuracy", finals=finals), ABOUT) == made
    other = page.Shown("online_accuracy", finals=finals.iloc[:2])
    assert page.page(table(), ARMS, other, ABOUT) != made


@pytest.mark.long
def test_forty_arms_stay_under_two_megabytes():
    probes = [f"probe_{number}" for number in range(12)]
    many = table(40, 3, 100, probes)
    text = page.page(many, ARMS, page.Shown("online_accuracy"), ABOUT)
    read(text)
    assert "<body class=many>" in text
    assert "With so many arms a band is shown of the one" in text
    assert len(text.encode()) < 2_000_000
    assert "Drawn at every 2th task." not in text
    assert "Drawn at every second task." in text


def test_no_name_ends_the_page_and_a_metric_that_is_none_is_one_sentence():
    names = ["</style><script>", "b", "c"]
    text = page.page(table(), ARMS, page.Shown("online_accuracy", names=names), ABOUT)
    read(text)
    assert "</style><script>" not in text.partition("</head>")[2]
    with pytest.raises(ValueError, match="unknown metric 'los'"):
        page.page(table(), ARMS, page.Shown("los"), ABOUT)
