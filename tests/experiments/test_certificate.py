"""What foretells whether clones part: directions, distances and eigenvalues of a pair, and how
certificates are judged.
"""

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


def test_the_command_line_of_the_certificate(tmp_path, capsys):
    assert certificate.main(["--workdir=x", "--seeds=3"]) == 2
    assert "is not a flag of this" in capsys.readouterr().err
    assert certificate.main([]) == 2
    table = pd.DataFrame({"activation": ["tanh"], "along": [0.1], "lowest": [-0.1]})
    table = table.assign(flow_1=1.1, ratio_1=0.9)
    certificate.picture(table, [1], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
