"""A method has one color in every figure; what else differs is in dashes and markers."""

import itertools

import pandas as pd
import pytest

from plasticity_jax.methods import METHODS
from plasticity_jax.reporting import looks


def of(*arms, columns=("transition", "method", "granularity")):
    return looks.of_arms(pd.DataFrame(arms, columns=list(columns)))


ABRUPT, L2, REDO = (("output", name, 1) for name in ("none", "l2", "redo"))
GRADUAL, SAMPLED = ("output", "none", 20), ("sampling", "none", 20)


def test_a_method_has_its_color_whatever_else_is_drawn():
    first = of(ABRUPT, L2, REDO)
    second = of(REDO, GRADUAL, ABRUPT, SAMPLED)
    third = of(("output", "redo", 20), ("output", "l2", 20))
    assert first[2]["color"] == second[0]["color"] == third[0]["color"] == looks.of_name("redo")
    assert first[1]["color"] == third[1]["color"] == looks.of_name("l2")
    assert first[0]["color"] == second[2]["color"] == looks.BLACK
    assert second[1]["color"] != second[3]["color"]  # two kinds of gradual change


def test_a_factorial_has_colors_for_methods_and_dashes_for_the_rest():
    arms = [("output", m, k) for m, k in itertools.product(("none", "l2", "redo"), (1, 4, 20))]
    made = of(*arms)
    for (_, method, granularity), look in zip(arms, made, strict=True):
        assert look["color"] == looks.of_name(method)
        assert look["linestyle"] == made[[1, 4, 20].index(granularity)]["linestyle"]
    assert len({look["linestyle"] for look in made[:2]}) == 2
    assert len({str(look) for look in made}) == 9
    assert made[1]["linestyle"] == "-"  # gradual change is solid, abrupt change is not
    assert made[0]["linestyle"] != "-"


def test_a_method_s_own_strength_is_no_second_axis():
    columns = ("method", "granularity", "l2.strength", "redo.threshold")
    made = of(
        ("none", 1, None, None),
        ("l2", 1, 0.01, None),
        ("redo", 1, None, 0.1),
        columns=columns,
    )
    assert len({look["linestyle"] for look in made}) == 1
    two = of(("l2", 1, 0.01, None), ("l2", 1, 0.1, None), ("redo", 1, None, 0.1), columns=columns)
    assert two[0]["color"] == two[1]["color"]
    assert two[0]["linestyle"] != two[1]["linestyle"]


def test_granularity_is_a_ramp_and_another_number_its_dashes():
    made = of((1, 0.1), (5, 0.1), (20, 0.1), (5, 0.2), columns=("granularity", "learning_rate"))
    assert made[0]["color"] == looks.BLACK
    assert made[1]["color"] == made[3]["color"]
    assert made[1]["color"] != made[2]["color"]
    assert made[1]["linestyle"] != made[3]["linestyle"]


def test_other_settings_have_colors_in_their_order():
    made = of((0.1,), (0.2,), (0.3,), columns=("learning_rate",))
    assert len({look["color"] for look in made}) == 3
    assert of((0.1,), columns=("learning_rate",))[0]["color"] == looks.BLACK


def test_a_method_alone_has_its_color_too():
    columns = ("method", "granularity", "learning_rate")
    assert of(("l2", 1, 0.1), columns=columns)[0]["color"] == looks.of_name("l2")
    made = of(("l2", 1, 0.1), ("l2", 1, 0.2), columns=columns)
    assert {look["color"] for look in made} == {looks.of_name("l2")}
    assert made[0]["linestyle"] != made[1]["linestyle"]
    many = of(*(("l2", 1, rate) for rate in range(1, 8)), columns=columns)
    assert len({look["color"] for look in many}) == 7  # more than there are dashes


def test_a_dash_means_the_same_for_methods_with_and_without_a_second_setting():
    columns = ("method", "granularity", "l2.strength")
    l2 = [("l2", k, strength) for k in (1, 5) for strength in (1e-3, 1e-4)]
    made = of(*l2, ("redo", 1, None), ("redo", 5, None), columns=columns)
    dashes = [look["linestyle"] for look in made]
    assert len(set(map(str, dashes[:4]))) == 4
    assert (dashes[4], dashes[5]) == (dashes[0], dashes[2])
    assert {look["marker"] for look in made} == {""}


@pytest.mark.parametrize("number", [1, 5, 40])
def test_no_two_arms_look_the_same(number):
    names = [*METHODS, *(f"own_{i}" for i in range(number)), "l2+redo"]
    made = of(*(("output", name, 1) for name in names))
    assert len({tuple(map(str, look.values())) for look in made}) == len(names)
