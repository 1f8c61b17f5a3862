import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from plasticity_jax.reporting import curves, statistics
from plasticity_jax.reporting import panels as panels_

ARMS = ["transition", "method", "granularity"]


def made(arms, seeds=3, tasks=12, every=1):
    generator = np.random.default_rng(0)
    rows = []
    for lane, (arm, seed) in enumerate((arm, seed) for arm in arms for seed in range(seeds)):
        for task in range(tasks):
            probed = task % every == every - 1
            rows.append(
                {
                    "lane": lane,
                    "task": task,
                    "seed": seed,
                    **dict(zip(ARMS, arm, strict=True)),
                    "online_accuracy": generator.uniform(0.2, 0.9),
                    "loss": generator.uniform(0, 2),
                    "hessian_top": 10 ** generator.uniform(task / 4, task / 4 + 1)
                    if probed
                    else np.nan,
                    "hessian_top/residual": 0.1,
                    "dormant_fraction": generator.uniform(0, 0.5) if probed else np.nan,
                    "finite": True,
                }
            )
    return pd.DataFrame(rows)


GRANULARITIES = [("output", "none", k) for k in (1, 5, 20)]
METHODS = [("output", "none", 1), ("output", "l2", 1), ("sampling", "none", 20)]


def panels(fig):
    return {axes.get_ylabel(): axes for axes in fig.axes if axes.get_ylabel()}


def test_lines_and_bands_are_the_statistics():
    table = made(GRANULARITIES)
    long = statistics.summary(table, ARMS)
    columns = {"minmax": ("minimum", "maximum"), "ci": ("low", "high"), "t": ("t_low", "t_high")}
    for band in panels_.BANDS:
        low, high = columns.get(band, (None, None))
        fig = curves.figure(table, ARMS, curves.Drawing(band=band))
        axes = panels(fig)["online accuracy"]
        assert len(axes.lines) == len(axes.collections) == 3
        for k, line, filled in zip((1, 5, 20), axes.lines, axes.collections, strict=True):
            rows = long[(long["granularity"] == k) & (long["metric"] == "online_accuracy")]
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 13))
            np.testing.assert_array_equal(line.get_ydata(), rows["mean"])
            lower = rows[low] if low else rows["mean"] - rows["standard_error"]
            upper = rows[high] if high else rows["mean"] + rows["standard_error"]
            edges = filled.get_paths()[0].vertices
            for task, bottom, top in zip(range(1, 13), lower, upper, strict=True):
                at = edges[edges[:, 0] == task][:, 1]
                np.testing.assert_allclose([at.min(), at.max()], [bottom, top])


def test_panels_are_the_metric_and_the_probes_without_details():
    fig = curves.figure(made(GRANULARITIES), ARMS)
    assert list(panels(fig)) == ["online accuracy", "largest Hessian eigenvalue", "dormant units"]
    assert panels(fig)["largest Hessian eigenvalue"].get_yscale() == "log"
    assert panels(fig)["dormant units"].get_yscale() == "linear"
    assert panels(
        curves.figure(made(GRANULARITIES), ARMS, curves.Drawing(metric="loss"))
    ).keys() == {
        "loss in nats after the task",
        *list(panels(fig))[1:],
    }


@pytest.mark.parametrize("probes", range(6))
def test_any_number_of_probes_without_overlap(probes):
    table = made(GRANULARITIES, tasks=3).drop(columns=["hessian_top", "dormant_fraction"])
    for number in range(probes):
        table[f"probe {number} of the tangent kernel at the start of the task"] = table["loss"]
    fig = curves.figure(table, ARMS, curves.Drawing(title="A title", note="A note. " * 60))
    fig.canvas.draw()
    assert len(panels(fig)) == 1 + probes
    boxes = [axes.get_tightbbox() for axes in fig.axes if axes.get_ylabel()]
    boxes += [fig.axes[1].get_legend().get_window_extent(), fig._suptitle.get_window_extent()]
    boxes.append(fig._supxlabel.get_window_extent())
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= fig.bbox.x1
        for other in boxes[:i]:
            assert (
                box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            )


def test_a_probe_is_drawn_where_it_ran_and_left_out_where_it_never_did():
    table = made(GRANULARITIES, every=4).assign(effective_rank=np.nan)
    axes = panels(curves.figure(table, ARMS))
    assert "effective rank" not in axes
    line = axes["dormant units"].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [4, 8, 12])
    assert line.get_marker() == "o"
    assert axes["online accuracy"].lines[0].get_marker() in ("", "None")


def test_an_arm_without_any_value_keeps_its_place():
    table = made(GRANULARITIES)
    table.loc[table["granularity"] == 1, ["online_accuracy", "hessian_top", "dormant_fraction"]] = (
        np.nan
    )
    axes = panels(curves.figure(table, ARMS))["online accuracy"]
    assert [line.get_label() for line in axes.lines] == statistics.arm_labels(table, ARMS).tolist()
    assert [len(line.get_xdata()) for line in axes.lines] == [0, 12, 12]


def test_one_legend_with_arms_and_chance():
    fig = curves.figure(made(METHODS), ARMS, curves.Drawing(chance=0.5))
    legends = [axes.get_legend() for axes in fig.axes if axes.get_legend()]
    assert len(legends) == 1
    assert [t.get_text() for t in legends[0].texts] == [
        "abrupt",
        "L2, abrupt",
        "task sampling, K = 20",
        "chance",
    ]
    assert list(panels(fig)["online accuracy"].lines[-1].get_ydata()) == [0.5, 0.5]
    assert not fig.axes[1].get_ylabel()  # the legend has a place of its own


def test_looks():
    def lines(arms):
        return panels(curves.figure(made(arms, tasks=3), ARMS))["online accuracy"].lines

    abrupt, coarse, fine = lines(GRANULARITIES)
    assert abrupt.get_linestyle() == "--"
    assert coarse.get_linestyle() == fine.get_linestyle() == "-"
    assert (
        sum(to_rgb(coarse.get_color()))
        > sum(to_rgb(fine.get_color()))
        > sum(to_rgb(abrupt.get_color()))
    )
    assert [line.get_linestyle() for line in lines(METHODS)] == ["--", "--", "-"]
    # nothing to contrast with
    assert {line.get_linestyle() for line in lines(METHODS[:2])} == {"-"}
    many = lines([("output", f"method{i}", 1) for i in range(16)])
    assert len({(line.get_color(), line.get_marker()) for line in many}) == 16


def test_diverged_seeds_and_one_seed_are_told():
    table = made(METHODS)
    table.loc[(table["lane"] == 4) & (table["task"] > 5), "finite"] = False
    table.loc[(table["lane"] == 4) & (table["task"] > 5), "online_accuracy"] = np.nan
    fig = curves.figure(table, ARMS, curves.Drawing(note="Two words."))
    assert "L2, abrupt\n(1 of 3 seeds diverged, from task 7)" in [
        t.get_text() for t in fig.axes[1].get_legend().texts
    ]
    caption = (
        "Line: mean over 3 seeds; band: minimum to maximum. A diverged seed is left out where it "
        "has no value."
    )
    assert fig._supxlabel.get_text() == f"{caption} Two words."
    assert "2 to 3 seeds" in curves.figure(table[table["lane"] != 0], ARMS)._supxlabel.get_text()
    single = curves.figure(made(METHODS, seeds=1), ARMS)
    assert single._supxlabel.get_text() == "One seed."
    assert not panels(single)["online accuracy"].collections


@pytest.mark.long
def test_a_bootstrap_band_of_few_seeds_says_that_it_is_too_narrow():
    def caption(seeds, band):
        return curves.figure(
            made(METHODS[:2], seeds, tasks=2), ARMS, curves.Drawing(band=band)
        )._supxlabel.get_text()

    interval = "band: 95 % percentile-bootstrap interval of the mean"
    assert (
        caption(9, "ci")
        == f"Line: mean over 9 seeds; {interval}, too narrow with fewer than 10 seeds."
    )
    assert caption(10, "ci") == f"Line: mean over 10 seeds; {interval}."
    assert (
        caption(3, "t")
        == "Line: mean over 3 seeds; band: 95 % interval of the mean by Student's t."
    )


def test_one_task_and_no_arm_columns_can_be_drawn(tmp_path):
    table = made(METHODS[:1], tasks=1)
    assert all(p.stat().st_size for p in curves.curves(table, [], tmp_path / "curves"))


def test_files_are_the_same_bytes_twice_and_settings_stay(tmp_path):
    table = made(METHODS, every=3)
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "lines.linewidth": 7}):
        before = dict(matplotlib.rcParams)
        first = curves.curves(
            table,
            ARMS,
            tmp_path / "a.b",
            curves.Drawing(band="sem", title="Title", note="Note", chance=0.1),
        )
        assert dict(matplotlib.rcParams) == before
    drawing = curves.Drawing("online_accuracy", "sem", "Title", "Note", 0.1)
    mixed = table.sample(frac=1, random_state=0)
    second = curves.curves(mixed, ARMS, str(tmp_path / "c"), drawing)
    assert [p.name for p in first] == ["a.b.png", "a.b.svg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.png", "a.b.svg", "c.png", "c.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in first[1].read_bytes()
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()


def value_axis(values, column="online_accuracy", band="minmax", chance=None):
    """The axis of values of a figure of two arms with `values` [task] or [seed, task], and the
    figure.
    """
    table = made(METHODS[:2], seeds=len(np.atleast_2d(values)), tasks=np.shape(values)[-1])
    table[column] = np.tile(np.ravel(values), 2)
    fig = curves.figure(
        table, ARMS, curves.Drawing(metric=column, band=band, chance=chance, panels=())
    )
    fig.canvas.draw()
    return fig.axes[0], fig


def labelled(axes):
    """The values at the labels of the axis of values that are within its limits."""
    low, high = axes.get_ylim()
    return [tick for tick in axes.get_yticks() if low <= tick <= high]


@pytest.mark.parametrize("band", panels_.BANDS)
@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
        [0.5, 0.5, 0.5],
        [[0.0, 0.1, 1.0], [1.0, 0.9, 1.0]],  # two seeds, whose t interval is wider than all shares
        [[0.98, 0.99, 1.0], [0.99, 1.0, 1.0]],
    ],
)
def test_an_axis_of_shares_stays_within_0_and_1(values, band):
    axes, _ = value_axis(values, band=band)
    assert min(labelled(axes)) >= -1e-9
    assert max(labelled(axes)) <= 1 + 1e-9
    assert len(labelled(axes)) >= 2
    low, high = axes.get_ylim()
    assert -0.05 < low <= np.min(values)
    assert np.max(values) <= high < 1.05
    if band == "minmax":  # no more of an axis than the values take and some room
        assert high - low <= max(1.15 * np.ptp(values), 0.11)
    assert {label.get_text()[-1] for label in axes.get_yticklabels()} == {"%"}


def test_what_calls_itself_a_share_and_is_none_is_shown_whole():
    axes, _ = value_axis([0.5, 1.5, 0.2])
    assert axes.get_ylim()[1] > 1.5
    assert max(labelled(axes)) > 1


@pytest.mark.parametrize("value", [2.3, -4e5, 0.0, 1e-30, 1e30])
def test_a_constant_is_a_line_in_the_middle_also_if_rounding_moves_it(value):
    for values in ([value] * 3, [value, value * (1 + 1e-7), value * (1 - 1e-7)]):
        axes, _ = value_axis(values, "parameter_norm")
        low, high = axes.get_ylim()
        assert low < value < high
        assert np.ptp(values) <= 0.01 * (high - low)  # no zigzag across the whole panel
        assert axes.get_yscale() == "linear"
        # no "+2.3" above the axis
        assert axes.yaxis.get_offset_text().get_text().partition("e")[0] in ("", "1")


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-3, 1.0, 1e4], "log"),
        ([0.0, 1.0, 1e4], "linear"),  # a zero has no place on a logarithmic axis
        ([-1e-3, 1.0, 1e4], "linear"),
        ([1.0, 50.0, 100.0], "linear"),
        ([1e-30, 1.0, 1e30], "log"),
    ],
)
@pytest.mark.parametrize("band", panels_.BANDS)
@pytest.mark.long
def test_a_logarithmic_axis_is_for_positive_values_of_several_decades(values, scale, band):
    axes, _ = value_axis([values, [1.5 * value for value in values]], "hessian_top", band)
    low, high = axes.get_ylim()
    assert (axes.get_yscale(), low <= min(values), high >= 1.25 * max(values)) == (
        scale,
        True,
        True,
    )


def test_a_metric_without_a_value_says_so():
    axes, fig = value_axis([[np.nan, np.inf]] * 2, chance=0.1)
    assert [text.get_text() for text in axes.texts] == ["nothing measured"]
    assert list(axes.get_yticks()) == []
    assert [t.get_text() for t in fig.axes[1].get_legend().texts] == ["none", "L2", "chance"]


@pytest.mark.parametrize("values", [[[0.5]], [[np.nan]], [[0.5, np.nan, 0.7]], [[np.nan], [0.3]]])
def test_single_lanes_and_gaps_are_drawn(values):
    axes, _ = value_axis(values)
    known = np.isfinite(values).any(axis=0)
    assert [list(line.get_xdata()) for line in axes.lines] == [list(1 + np.flatnonzero(known))] * 2


def test_a_chance_that_is_no_number_is_not_drawn():
    axes, _ = value_axis([0.5, 0.6], chance=float("nan"))
    assert len(axes.lines) == 2


def test_pyplot_is_not_needed():
    import subprocess

    code = "import sys, plasticity_jax.reporting.curves; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_refusals(tmp_path):
    table = made(METHODS)
    with pytest.raises(ValueError, match="unknown band 'std': known are minmax, sem, ci, t"):
        curves.curves(table, ARMS, tmp_path / "x", curves.Drawing(band="std"))
    with pytest.raises(ValueError, match="unknown metric 'speed': known are online_accuracy, loss"):
        curves.figure(table, ARMS, curves.Drawing(metric="speed"))
    with pytest.raises(ValueError, match="no rows"):
        curves.figure(table.head(0), ARMS)
    with pytest.raises(FileNotFoundError):
        curves.curves(table, ARMS, tmp_path / "no" / "folder")


def test_a_line_that_ends_early_has_no_beads():
    table = made(METHODS)
    table.loc[(table["granularity"] == 20) & (table["task"] > 4), "online_accuracy"] = np.nan
    line = panels(curves.figure(table, ARMS))["online accuracy"].lines[-1]
    assert len(line.get_xdata()) == 5
    assert line.get_marker() in ("", "None")


@pytest.mark.long
def test_one_outlier_of_a_band_does_not_flatten_a_panel():
    values = np.tile(np.linspace(1.0, 2.0, 30), (3, 1))
    values += 0.1 * np.arange(3)[:, None]
    axes, _ = value_axis(values, "parameter_norm")
    assert axes.get_ylim()[1] < 2.4
    values[0, 10] = 100
    means = values.mean(axis=0)
    axes, _ = value_axis(values, "parameter_norm")
    assert axes.get_ylim()[1] > means.max()  # the line is whole
    values[:2, 10] = 100, -96.5  # the mean stays
    axes, _ = value_axis(values, "parameter_norm")
    low, high = axes.get_ylim()
    assert low > -1
    assert high < 5


def test_an_axis_of_counts_does_not_go_below_zero_for_a_band():
    values = np.zeros((3, 30))
    values[0, ::7] = 9.0  # intervals of a mean of 3 reach below 0
    axes, _ = value_axis(values, "units_reset")
    low, high = axes.get_ylim()
    assert -0.05 * high <= low <= 0
    values[1, 3] = -1.0
    axes, _ = value_axis(values, "units_reset")
    assert axes.get_ylim()[0] < -1


def test_percent_on_a_logarithmic_axis_too():
    axes, fig = value_axis([[1e-4, 1e-2, 0.9], [2e-4, 2e-2, 0.95]], "dormant_fraction")
    assert axes.get_yscale() == "log"
    fig.canvas.draw()
    shown = [label.get_text() for label in axes.get_yticklabels() if label.get_text()]
    assert shown
    assert all(text.endswith("%") for text in shown)


@pytest.mark.parametrize("width", curves.WIDTHS)
def test_widths_of_a_page_and_of_columns(width):
    fig = curves.figure(made(METHODS), ARMS, curves.Drawing(width=width, title="A title " * 9))
    fig.canvas.draw()
    assert fig.get_size_inches()[0] == {"page": 9.5, "double": 6.9, "single": 3.4}[width]
    boxes = [axes.get_tightbbox() for axes in fig.axes if axes.get_ylabel()]
    boxes += [axes.get_legend().get_window_extent() for axes in fig.axes if axes.get_legend()]
    boxes += [fig._suptitle.get_window_extent(), fig._supxlabel.get_window_extent()]
    for i, box in enumerate(boxes):
        assert box.x0 >= -1
        assert box.x1 <= fig.bbox.x1 + 1
        for other in boxes[:i]:
            assert (
                box.x1 <= other.x0 or other.x1 <= box.x0 or box.y1 <= other.y0 or other.y1 <= box.y0
            )


def test_names_and_formats(tmp_path):
    drawing = curves.Drawing(names=["A", "B", "C"], formats=("pdf", "png"), panels=())
    first = curves.curves(made(METHODS), ARMS, tmp_path / "a", drawing)
    second = curves.curves(made(METHODS), ARMS, tmp_path / "b", drawing)
    assert [path.name for path in first] == ["a.pdf", "a.png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    fig = curves.figure(made(METHODS), ARMS, drawing)
    assert [line.get_label() for line in panels(fig)["online accuracy"].lines] == ["A", "B", "C"]
    with pytest.raises(
        ValueError, match="arm_names are 1: allowed are as many as arms, 3, in this"
    ):
        curves.figure(made(METHODS), ARMS, curves.Drawing(names=["A"]))
    with pytest.raises(ValueError, match="unknown figure_format 'gif': known are"):
        curves.curves(made(METHODS), ARMS, tmp_path / "c", curves.Drawing(formats=("gif",)))
    with pytest.raises(ValueError, match="unknown figure_width 'wide': known are"):
        curves.figure(made(METHODS), ARMS, curves.Drawing(width="wide"))


@pytest.mark.parametrize(("values", "there"), [([0.6, 0.9], False), ([0.05, 0.9], True)])
def test_a_chance_beyond_the_axis_is_not_named(values, there):
    axes, fig = value_axis(values, chance=0.1)
    named = [text.get_text() for text in fig.axes[1].get_legend().texts]
    assert ("chance" in named) == there
    low, high = axes.get_ylim()
    assert (low <= 0.1 <= high) == there
