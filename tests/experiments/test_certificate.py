"""What foretells whether clones part: directions, distances and eigenvalues of a pair, and how
certificates are judged.
"""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from experiments.barriers import certificate
from plasticity_jax import manifolds
from plasticity_jax.models import MLP

pytestmark = pytest.mark.usefixtures("compiled_quickly")

NET = MLP(3, width=2, depth=2, norm="none", activation="tanh")
X = jnp.asarray(np.random.default_rng(0).normal(size=(10, 4)), jnp.float32)
Y = jnp.arange(10, dtype=jnp.int32) % 3
SCALE = certificate.Scale(horizons=(1, 3))
RESULTS = Path(certificate.__file__).parent / "results"


@pytest.fixture(scope="module")
def wide():
    """The cloned network's unit groups, loss and parameters."""
    narrow = NET.init(jax.random.key(0), X)["params"]
    net, params = certificate.cloned(NET, narrow, X)
    assert net.width == 4
    outputs = [one.apply({"params": p}, X) for one, p in ((NET, narrow), (net, params))]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    return net.units(), certificate.loss_of(net, (X, Y)), params


@pytest.mark.long
def test_a_parted_pair_is_as_far_apart_as_the_manifold_says(wide):
    units, _, params = wide
    for group, count in (("h0", 4 + 1 + 4), ("h1", 4 + 1 + 3)):
        numbers = jnp.arange(1.0, count + 1) / 10
        pair = manifolds.of_units(units, params, {group: [0, 1, 2, 2]})

        @jax.jit
        def distances(numbers, group=group, pair=pair):
            direction = certificate.parting(params, units[group], 1, numbers)
            moved = jax.tree.map(jnp.add, params, direction)
            far = [certificate.apart(moved, units[group], place) for place in (0, 1)]
            return *far, manifolds.distance(pair, moved), optax.tree.norm(direction)

        other, far, *same = distances(numbers)
        np.testing.assert_allclose([float(far)] * 2, same, rtol=1e-4)
        assert float(other) < 1e-6


@pytest.mark.long
def test_the_lowest_curvature_is_that_of_the_stability_certificate(wide):
    units, loss, params = wide
    pair = manifolds.of_units(units, params, {"h1": [0, 1, 2, 2]})

    @jax.jit
    def both(params):
        found = manifolds.stability(pair, loss, params, jax.random.key(0), 30, 1e-5)
        return found.lowest.value, certificate.lowest(loss, params, units["h1"], 1, 4 + 1 + 3)

    want, lowest = both(params)
    assert float(lowest) == pytest.approx(float(want), rel=1e-3)


@pytest.mark.long
def test_a_pair_is_followed_as_gradient_descent_goes(wide):
    units, loss, params = wide
    found = jax.jit(
        lambda p: certificate.followed(loss, p, units["h1"], 0, jax.random.key(1), SCALE)
    )(params)
    first = float(found["flow_1"])
    # one step of the whole network and of its linearisation about the clones are the same
    assert float(found["ratio_1"]) == pytest.approx(first, abs=2e-4)
    assert float(found["lowest"]) <= float(found["along"]) + 1e-6
    assert first**2 >= (1 - SCALE.rate * float(found["along"])) ** 2 - 1e-5


def test_certificates_are_judged_by_what_they_said_and_what_came():
    rows = {
        "activation": ["tanh"] * 4,
        "trained": [0, 0, 1, 1],
        "seed": [0, 0, 0, 0],
        "along": [-1.0, 1.0, -1.0, 1.0],
        "lowest": [-1.0] * 4,
        "flow_1": [2.0, 0.5, 0.5, 0.5],
        "ratio_1": [1.5, 0.9, 0.9, 1.1],
    }
    found = certificate.judged(pd.DataFrame(rows), [1])
    every = found[found["activation"] == "all"].set_index("certificate")
    assert list(every["sensitivity"]) == [0.5, 1.0, 0.5]
    assert list(every["specificity"]) == [0.5, 0.0, 1.0]
    assert list(every["parted"]) == [2] * 3
    assert (every["sensitivity_low"] <= every["sensitivity"]).all()
    assert every.loc["along", "sensitivity_high"] == 1


def test_the_table_is_that_of_the_pairs_that_are_kept():
    """As far as their digits tell: a ratio that is 1 in six of them may be on either side of it."""
    pairs = pd.read_csv(RESULTS / "certificate_pairs.csv")
    names = [name for name in pairs if name.startswith(("ratio", "flow"))]
    horizons = certificate.SCALES["full"].horizons
    kept = pd.read_csv(RESULTS / "certificate.csv")
    low, high = (
        certificate.judged(pairs.assign(**pairs[names].replace(1.0, one)), horizons)
        for one in (1 - 5e-7, 1 + 5e-7)
    )
    told = (low == high).all(axis="columns")
    assert told.sum() == 12  # (all of tanh)
    shown = io.StringIO(low.to_csv(index=False, float_format="%.4g"))
    assert pd.read_csv(shown)[told].equals(kept[told])
    assert kept["parted"].between(low["parted"], high["parted"]).all()
    assert (kept["parted"] + kept["fell_back"] == low["parted"] + low["fell_back"]).all()


def test_pairs_are_written_with_the_digits_that_tell_whether_they_part(tmp_path, monkeypatch):
    names = ["activation", "trained", "seed", "along", "lowest", "flow_1", "ratio_1"]
    near = 1 + 1e-12
    rows = [["tanh", 0, 0, -1e-9, -1.0, near, near], ["tanh", 0, 0, 0.1, 0.1, 0.9, 0.9]]
    monkeypatch.setattr(certificate, "pairs", lambda scale: pd.DataFrame(rows, columns=names))
    monkeypatch.setattr(certificate, "picture", lambda *_: None)
    certificate.run(tmp_path, certificate.Scale(horizons=(1,)))
    pairs = pd.read_csv(tmp_path / "certificate_pairs.csv")
    again = certificate.judged(pairs, [1]).to_csv(index=False, float_format="%.4g")
    assert again == (tmp_path / "certificate.csv").read_text()
    assert list(pairs["ratio_1"] > 1) == [True, False]


def test_the_command_line_of_the_certificate(tmp_path, capsys):
    assert certificate.main(["--workdir=x", "--seeds=3"]) == 2
    assert "is not a flag of this" in capsys.readouterr().err
    assert certificate.main([]) == 2
    table = pd.DataFrame({"activation": ["tanh"], "along": [0.1], "lowest": [-0.1]})
    table = table.assign(flow_1=1.1, ratio_1=0.9)
    certificate.picture(table, [1], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
