"""Manifolds of cloned and frozen units against explicit projections and dense Hessians in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.networks import quickly
from jax.flatten_util import ravel_pytree

from plasticity_jax import manifolds
from plasticity_jax.models import ACTIVATIONS, CNN, MLP, ViT
from plasticity_jax.surgery.clone import clone
from plasticity_jax.types import Recipient, TrainState

NET = MLP(2, width=4, depth=2, norm="none", activation="tanh")
UNITS = NET.units()
LABELS = {"h0": [7, 2, 7, 2], "h1": [0, 1, 1, 1]}
X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(size=(12, 2)), jnp.float32)


def params_of(net, x, seed=0):
    """Parameters that are all drawn, biases too."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x)["params"])
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(random.normal(0, 0.5, s.shape), s.dtype), shapes)


PARAMS = params_of(NET, X)
CLONES = manifolds.of_units(UNITS, PARAMS, LABELS)


def loss_of(net):
    def loss(params, batch):
        x, y = batch
        return jnp.square(net.apply({"params": params}, x) - y).mean()

    return loss


def batches(x, count=4, outputs=2):
    random = np.random.default_rng(2)
    for _ in range(count):
        y = random.normal(size=(len(x), outputs))
        yield jnp.asarray(random.normal(size=x.shape), jnp.float32), jnp.asarray(y, jnp.float32)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


# What the projections are, written out


def constraints():
    """Rows of a matrix A so that A p = 0 says that units of a number are clones; and a basis of
    what is constant on blocks.
    """
    _, unravel = ravel_pytree(PARAMS)
    size = len(flat(PARAMS))
    index = jax.tree.map(np.asarray, unravel(jnp.arange(size, dtype=jnp.float32)))
    numbers = {"layer0": (None, LABELS["h0"]), "layer1": (LABELS["h0"], LABELS["h1"])}
    numbers["head"] = (LABELS["h1"], None)
    rows, constant = [], []

    def one_hot(entries, weight=1.0):
        row = np.zeros(size)
        row[np.asarray(entries, int).ravel()] = weight
        return row

    for name, (given, made) in numbers.items():
        kernel = index[name]["kernel"].astype(int)
        sets = []
        for labels, count in ((given, kernel.shape[0]), (made, kernel.shape[1])):
            labels = np.arange(count) if labels is None else np.asarray(labels)
            sets.append([np.flatnonzero(labels == value) for value in np.unique(labels)])
        for inputs, outputs in itertools.product(*sets):
            block = kernel[np.ix_(inputs, outputs)]
            rows += [one_hot(block[:, j]) - one_hot(block[:, 0]) for j in range(len(outputs))]
            rows += [one_hot(block[i]) - one_hot(block[0]) for i in range(len(inputs))]
            constant.append(one_hot(block))
        for outputs in sets[1]:
            bias = index[name]["bias"].astype(int)[outputs]
            rows += [one_hot(bias[j]) - one_hot(bias[0]) for j in range(len(outputs))]
            constant.append(one_hot(bias))
    return np.array(rows), np.array(constant)


ROWS, CONSTANT = constraints()
INSIDE = np.eye(len(ROWS[0])) - np.linalg.pinv(ROWS) @ ROWS
TANGENT = np.linalg.pinv(CONSTANT) @ CONSTANT


@pytest.mark.long
def test_projections_are_those_of_the_definition():
    np.testing.assert_allclose(flat(CLONES.inside(PARAMS)), INSIDE @ flat(PARAMS), atol=1e-6)
    np.testing.assert_allclose(flat(CLONES.tangent(PARAMS)), TANGENT @ flat(PARAMS), atol=1e-6)
    np.testing.assert_allclose(
        flat(manifolds.normal(CLONES, PARAMS)), flat(PARAMS) - TANGENT @ flat(PARAMS), atol=1e-6
    )
    away = np.linalg.norm(flat(PARAMS) - INSIDE @ flat(PARAMS))
    assert float(manifolds.distance(CLONES, PARAMS)) == pytest.approx(away, rel=1e-5)
    assert not manifolds.is_member(CLONES, PARAMS)
    assert manifolds.is_member(CLONES, CLONES.nearest(PARAMS))
    # the clones of a general point are not constant on blocks, and there are fewer of the latter
    assert np.linalg.matrix_rank(TANGENT) == len(CONSTANT) < np.linalg.matrix_rank(INSIDE)
    share = float(manifolds.normal_fraction(CLONES, PARAMS))
    normal = np.linalg.norm(flat(PARAMS) - TANGENT @ flat(PARAMS))
    assert share == pytest.approx(normal / np.linalg.norm(flat(PARAMS)), rel=1e-5)


@pytest.mark.long
def test_equitability_tells_rows_columns_and_vectors_apart():
    here = CLONES.nearest(PARAMS)
    kernel = here["layer1"]["kernel"]
    assert max(CLONES.equitability(here)) < 1e-6
    # within the block of inputs 0, 2 and units 1, 2, 3
    rows = {**here, "layer1": {**here["layer1"], "kernel": kernel.at[0, 1:].add(0.3)}}
    columns = {**here, "layer1": {**here["layer1"], "kernel": kernel.at[:, 1].add(0.3)}}
    vectors = {**here, "layer0": {**here["layer0"], "bias": here["layer0"]["bias"].at[0].add(0.2)}}
    found = [CLONES.equitability(params) for params in (rows, columns, vectors)]
    assert [np.round(np.asarray(f), 4).tolist() for f in found] == [
        pytest.approx([0, 0.45, 0]),
        pytest.approx([0.4, 0, 0]),
        pytest.approx([0, 0, 0.1]),
    ]


# What training does there


@pytest.mark.parametrize(
    ("optimizer", "stays"),
    [
        (optax.sgd(0.05), True),
        (optax.sgd(0.05, momentum=0.9), True),
        (optax.adam(0.01), True),
        (optax.adamw(0.05, weight_decay=0.5), False),
    ],
    ids=["sgd", "momentum", "adam", "adamw"],
)
@pytest.mark.long
def test_clones_that_are_not_constant_stay_clones(optimizer, stays):
    """Proposition 4.1 and beyond: gradients are constant on blocks, clones persist under decay too,
    which leaves the affine space.
    """
    found = manifolds.invariance(
        CLONES, loss_of(NET), CLONES.nearest(PARAMS), optimizer, batches(X, 5)
    )
    assert float(found.gradient) < 1e-6
    assert float(found.distance) < 1e-6
    assert float(found.change) < 1e-5 if stays else float(found.change) > 0.05


def test_equal_activations_alone_do_not_make_gradients_equal():
    """Rows that are equitable, columns that are not."""
    here = CLONES.nearest(PARAMS)
    head = {**here["head"], "kernel": PARAMS["head"]["kernel"]}
    found = manifolds.invariance(
        CLONES, loss_of(NET), {**here, "head": head}, optax.sgd(0.1), [(X, Y)]
    )
    assert float(found.gradient) > 0.05
    _, seen = NET.apply({"params": {**here, "head": head}}, X, mutable=["hidden"])
    np.testing.assert_allclose(seen["hidden"]["h1"][:, 1], seen["hidden"]["h1"][:, 3], atol=1e-6)


@pytest.mark.long
def test_noise_leaves_the_manifold():
    noisy = optax.chain(optax.add_noise(0.1, 0.55, jax.random.key(0)), optax.sgd(0.05))
    found = manifolds.invariance(CLONES, loss_of(NET), CLONES.nearest(PARAMS), noisy, batches(X, 2))
    assert float(found.distance) > 1e-3


IMAGES = jnp.asarray(np.random.default_rng(3).normal(size=(4, 4, 4, 1)), jnp.float32)


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (MLP(2, width=6, depth=2, norm="layer", activation="crelu"), X),
        (CNN(2, norm="none", base=2, dense=4), IMAGES),
    ],
    ids=["crelu", "cnn"],
)
@pytest.mark.long
def test_copies_positions_and_norms(net, x):
    params = params_of(net, x, 4)
    clones = manifolds.of_factor(net.units(), params, 2)
    here = clones.nearest(params)
    loss, y = loss_of(net), Y[: len(x)]
    gradient, moved = (
        quickly(jax.grad(lambda p: loss(p, (x, y))), place) for place in (here, params)
    )
    assert float(manifolds.normal_fraction(clones, gradient)) < 2e-6
    assert float(manifolds.normal_fraction(clones, moved)) > 0.05
    assert manifolds.is_member(clones, here)


@pytest.mark.long
def test_what_surgery_makes_is_on_the_manifold_and_stays():
    """Of a network whose residual stream is cloned too, which no unit group has."""
    net = ViT(2, "layer", patch=2, embedding=4, blocks=1, heads=2, ratio=1, dropout=0.0)
    narrow = params_of(net, IMAGES, 5)
    cut = clone(factor=2)
    wider = cut.model(net)
    shapes = jax.eval_shape(lambda: wider.init(jax.random.key(0), IMAGES)["params"])
    into = Recipient(wider, lambda: TrainState(shapes, {}, shapes, ()))
    state = TrainState(narrow, {}, narrow, ())
    wide = cut.operate(jax.random.key(0), state, into).params
    clones = manifolds.of_widening(narrow, wide, 2)
    assert ("block0_query", "kernel") in clones.blocks
    assert float(manifolds.distance(clones, wide)) < 1e-5
    loss = loss_of(wider)
    gradient = quickly(jax.grad(lambda p: loss(p, (IMAGES, Y[:4]))), wide)
    assert float(manifolds.normal_fraction(clones, gradient)) < 1e-5


@pytest.mark.long
def test_frozen_units_have_no_gradient_and_may_move_all_the_same():
    net = MLP(2, width=4, depth=2, norm="none")
    params = params_of(net, X, 6)
    params["layer1"]["bias"] = params["layer1"]["bias"].at[2].set(-50.0)
    _, seen = net.apply({"params": params}, X, mutable=["preactivations"])
    marks = manifolds.frozen_units(seen["preactivations"], ACTIVATIONS["relu"])
    assert marks["h1"].tolist()[2] is True
    frozen = manifolds.of_frozen(net.units(), params, {"h1": [False, False, True, False]})
    still = manifolds.invariance(frozen, loss_of(net), params, optax.sgd(0.1), batches(X, 3))
    assert [float(number) for number in still] == [0, 0, 0]
    decay = manifolds.invariance(frozen, loss_of(net), params, optax.adamw(0.1), batches(X, 3))
    assert float(decay.gradient) == 0 < float(decay.distance)
    # what the optimizer remembers of before
    tx = optax.sgd(0.1, momentum=0.9)
    trace = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))[1]
    zero = jax.tree.map(jnp.zeros_like, params)
    moved = optax.apply_updates(params, tx.update(zero, trace)[0])
    # (weights [4], and a bias)
    assert float(manifolds.distance(frozen, moved)) == pytest.approx(0.09 * 5**0.5, rel=1e-4)
    assert not manifolds.is_member(frozen, moved, 1e-3)
    shift = manifolds.shift_to_frozen(seen["preactivations"]["h1"])
    lower = {**params, "layer1": {**params["layer1"], "bias": params["layer1"]["bias"] - shift}}
    _, silent = net.apply({"params": lower}, X, mutable=["hidden"])
    assert float(shift[2]) == 0 < float(shift[0])
    assert np.abs(silent["hidden"]["h1"]).max() < 1e-6


# Stability


@pytest.mark.long
def test_extreme_curvatures_are_those_of_the_dense_hessian():
    here = CLONES.nearest(PARAMS)
    start, unravel = ravel_pytree(here)

    def loss(params):
        return loss_of(NET)(params, (X, Y))

    dense = np.asarray(jax.jit(jax.hessian(lambda v: loss(unravel(v))))(start), np.float64)
    vectors = np.linalg.svd(ROWS, full_matrices=True)[2][: np.linalg.matrix_rank(ROWS)]
    values, inner = np.linalg.eigh(vectors @ dense @ vectors.T)
    found = jax.jit(lambda p: manifolds.stability(CLONES, loss, p, jax.random.key(0), 40, 1e-4))(
        here
    )
    assert float(found.lowest.value) == pytest.approx(values[0], rel=1e-3)
    assert float(found.highest.value) == pytest.approx(values[-1], rel=1e-3)
    assert values[0] < 0 < values[-1]  # clones of two units are a saddle
    direction = unravel(jnp.asarray(inner[:, 0] @ vectors, jnp.float32))
    assert float(manifolds.curvature(loss, here, direction)) == pytest.approx(values[0], rel=1e-3)


@pytest.mark.long
def test_the_sign_of_the_curvature_tells_whether_clones_part_or_fall_back():
    """Sixty-four pairs of clones, parted a little along their own incoming weights; how far they
    are apart after a step is foretold by the curvature along what parts them.
    """
    pair = manifolds.of_units(UNITS, PARAMS, {"h1": [0, 0, 1, 2]})

    def loss(params, y):
        return loss_of(NET)(params, (X, y))

    def one(key):
        drawn = jax.random.normal(key, ravel_pytree(PARAMS)[0].shape)
        here = pair.nearest(ravel_pytree(PARAMS)[1](drawn))
        y = jax.random.normal(jax.random.fold_in(key, 1), Y.shape)
        part = jax.random.normal(jax.random.fold_in(key, 2), (5,)) * 1e-2
        zero = jax.tree.map(jnp.zeros_like, here)
        kernel = zero["layer1"]["kernel"].at[:, 0].set(part[:4]).at[:, 1].set(-part[:4])
        bias = zero["layer1"]["bias"].at[0].set(part[4]).at[1].set(-part[4])
        direction = {**zero, "layer1": {"kernel": kernel, "bias": bias}}
        sign = manifolds.curvature(lambda p: loss(p, y), here, direction)
        parted = jax.tree.map(jnp.add, here, direction)
        gradient = jax.grad(loss)(parted, y)
        away = jax.tree.map(jnp.subtract, gradient, pair.inside(gradient))
        growth = -optax.tree.vdot(away, direction) / optax.tree.vdot(direction, direction)
        return sign, growth

    signs, growths = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 64))
    assert min(int((signs > 0).sum()), int((signs < 0).sum())) >= 10
    clear = np.abs(signs) > 1e-2
    assert clear.sum() >= 50
    np.testing.assert_allclose(growths[clear], -signs[clear], rtol=0.1, atol=2e-3)


# What is there


def test_clones_are_found_by_weights_and_by_activations():
    here = CLONES.nearest(PARAMS)
    found = manifolds.alike_by_weights(UNITS, here)
    assert {group: labels.tolist() for group, labels in found.items()} == {
        "h0": [0, 1, 0, 1],
        "h1": [0, 1, 1, 1],
    }
    _, seen = NET.apply({"params": here}, X, mutable=["hidden"])
    again = manifolds.alike_by_activations(seen["hidden"])
    for group, labels in found.items():
        np.testing.assert_array_equal(again[group], labels)
    assert manifolds.is_member(manifolds.of_units(UNITS, here, found), here)
    alone = manifolds.alike_by_weights(UNITS, PARAMS)
    assert [labels.tolist() for labels in alone.values()] == [[0, 1, 2, 3]] * 2
    doubled = MLP(2, width=4, depth=1, norm="layer", activation="crelu")
    params = params_of(doubled, X)
    clones = manifolds.of_factor(doubled.units(), params, 2)
    labels = manifolds.alike_by_weights(doubled.units(), clones.nearest(params))
    assert labels["h0"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("net", [NET, MLP(2, width=4, depth=1, norm="layer", activation="crelu")])
@pytest.mark.long
def test_the_nearest_pair_is_the_nearest_of_all(net):
    units, params = net.units(), params_of(net, X, 7)
    for group, pair in jax.jit(lambda p: manifolds.nearest_pairs(units, p))(params).items():
        distances = {}
        for one, other in itertools.combinations(range(4), 2):
            labels = np.arange(4)
            labels[other] = one
            manifold = manifolds.of_units(units, params, {group: labels})
            distances[one, other] = float(manifolds.distance(manifold, params))
        nearest = min(distances, key=lambda pair: distances[pair])
        assert tuple(np.asarray(pair.units)) == nearest
        assert float(pair.distance) == pytest.approx(distances[nearest], rel=1e-5)
        assert 0 < float(pair.forward) < float(pair.distance)
        assert 0 < float(pair.relative) < 1
        labels = np.arange(4)
        labels[nearest[1]] = nearest[0]
        here = manifolds.of_units(units, params, {group: labels}).nearest(params)
        again = manifolds.nearest_pairs(units, here)[group]
        assert float(again.distance) < 1e-6


# What is refused

WIDE = MLP(2, width=6, depth=2, norm="none", activation="tanh")
OTHER = params_of(WIDE, X)
LACKING = {name: layer for name, layer in PARAMS.items() if name != "layer1"}
# layers that do not fit each other, as no network has them
MIXED = {**PARAMS, "layer1": OTHER["layer1"]}
FROZEN = manifolds.of_frozen(UNITS, PARAMS, {"h1": [True, False, False, True]})
OF_A_TREE = {
    "tangent": lambda manifold, tree: manifold.tangent(tree),
    "inside": lambda manifold, tree: manifold.inside(tree),
    "nearest": lambda manifold, tree: manifold.nearest(tree),
    "normal": manifolds.normal,
    "distance": manifolds.distance,
    "is_member": manifolds.is_member,
    "normal_fraction": manifolds.normal_fraction,
    "invariance": lambda manifold, tree: manifolds.invariance(
        manifold, loss_of(NET), tree, optax.sgd(0.1), [(X, Y)]
    ),
    "stability": lambda manifold, tree: manifolds.stability(
        manifold, lambda p: loss_of(NET)(p, (X, Y)), tree, jax.random.key(0)
    ),
}
OF_UNITS = {
    "of_units": lambda tree: manifolds.of_units(UNITS, tree, {}),
    "of_factor": lambda tree: manifolds.of_factor(UNITS, tree, 2),
    "of_frozen": lambda tree: manifolds.of_frozen(UNITS, tree, {}),
    "nearest_pairs": lambda tree: manifolds.nearest_pairs(UNITS, tree),
    "alike_by_weights": lambda tree: manifolds.alike_by_weights(UNITS, tree),
}


def refused(call, *arguments) -> str:
    with pytest.raises(ValueError, match=r"allowed (is|are) ") as error:
        call(*arguments)
    said = str(error.value)
    assert said.count(". ") == 0
    assert said.endswith(".")
    return said


@pytest.mark.parametrize("name", OF_A_TREE)
def test_a_tree_that_is_not_of_the_manifold_is_refused(name):
    call = OF_A_TREE[name]
    for manifold, whose in ((CLONES, "the clones are of"), (FROZEN, "the frozen units are of")):
        said = refused(call, manifold, OTHER)
        assert said.startswith("the tree has ")
        assert f", but {whose} one with last axes (" in said
        assert refused(call, manifold, LACKING).startswith(f"{whose} layer1/")
    more = refused(call, FROZEN, {**PARAMS, "more": PARAMS["head"]})
    assert more.startswith("the tree has more/")


def test_trees_are_refused_by_shapes_alone():
    said = refused(jax.jit(CLONES.equitability), OTHER)
    assert "layer0/bias of shape (6,), but the clones are of one with last axes (4,)" in said
    assert refused(jax.jit(CLONES.equitability), {}).startswith("the clones are of layer")
    said = refused(jax.jit(FROZEN.nearest), {**PARAMS, "head": OTHER["head"]})
    assert (
        "head/kernel of shape (6, 2), but the frozen units are of one with last axes (4, 2" in said
    )


def test_a_direction_of_other_parameters_has_no_curvature():
    def loss(params):
        return loss_of(NET)(params, (X, Y))

    said = refused(manifolds.curvature, loss, PARAMS, OTHER)
    assert "the parameters are of one with last axes" in said
    assert refused(manifolds.curvature, loss, PARAMS, LACKING).startswith("the parameters are of")


@pytest.mark.parametrize("name", OF_UNITS)
def test_layers_that_do_not_fit_each_other_are_refused(name):
    said = refused(OF_UNITS[name], MIXED)
    assert "layer1/kernel of units 'h0' has shape (6, 6): allowed is one of the 4 units" in said
    assert refused(OF_UNITS[name], LACKING).startswith("units 'h0' are of layer1/kernel")


def test_every_function_of_a_tree_is_asked_for_trees_that_do_not_fit():
    others = {"of_widening", "curvature"}  # above and below
    others |= {"alike_by_activations", "frozen_units", "shift_to_frozen"}  # of activations
    functions = {name for name in manifolds.__all__ if name.islower()}
    assert functions == others | set(OF_UNITS) | set(OF_A_TREE) - {"tangent", "inside", "nearest"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: manifolds.of_factor(UNITS, PARAMS, 3),
            r"factor is 3: allowed are .* 4 units of h0",
        ),
        (lambda: manifolds.of_factor(UNITS, PARAMS, 1), r"factor is 1: allowed are whole numbers"),
        (
            lambda: manifolds.of_factor({}, PARAMS, 2),
            r"units is empty: allowed are the unit groups",
        ),
        (
            lambda: manifolds.of_units(UNITS, PARAMS, {"h0": [0, 1]}),
            r"labels of h0 are \[0, 1\]: allowed are 4 whole numbers",
        ),
        (
            lambda: manifolds.of_units(UNITS, PARAMS, {"h0": [0.0, 1.0, 0.5, 2.0]}),
            r"labels of h0 are .*: allowed are 4 whole numbers",
        ),
        (
            lambda: manifolds.of_units(UNITS, PARAMS, {"h7": [0, 1, 2, 3]}),
            r"group of clones is 'h7': allowed are 'h0', 'h1'",
        ),
        (
            lambda: manifolds.of_frozen(UNITS, PARAMS, {"h0": [1, 0, 0, 1]}),
            r"marks of h0 are .*: allowed are 4 times true or false",
        ),
        (
            lambda: manifolds.nearest_pairs(UNITS, {"layer0": PARAMS["layer0"]}),
            r"units 'h0' are of layer1/kernel, which the parameters do not have",
        ),
        (
            lambda: CLONES.tangent({"layer0": PARAMS["layer0"]}),
            r"the clones are of layer1/kernel, which the tree does not have",
        ),
        (
            lambda: manifolds.of_widening(PARAMS, {"layer0": PARAMS["layer0"]}, 2),
            r"is in one of the trees only",
        ),
        (
            lambda: manifolds.of_widening(PARAMS, jax.tree.map(lambda p: p[..., :-1], PARAMS), 2),
            r"of which clones of factor 2 make none of shape",
        ),
    ],
)
def test_what_is_none_is_refused_in_one_sentence(call, said):
    with pytest.raises(ValueError, match=said) as error:
        call()
    assert str(error.value).count(". ") == 0
    assert str(error.value).endswith(".")
