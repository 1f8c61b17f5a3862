"""What is measured beside the end of a task: its start, its course, tasks before it, and what
probes say in several numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import tiny

import plasticity_jax as pj
from plasticity_jax import lanes, probes
from plasticity_jax.execution import sweep
from plasticity_jax.reporting import metrics
from plasticity_jax.spec import Spec
from plasticity_jax.storage.workdir import WorkdirError
from plasticity_jax.stream import keys
from plasticity_jax.training import network, supervised

pytestmark = pytest.mark.usefixtures("compiled_quickly")

DATA = jax.tree.map(jnp.asarray, tiny.data())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.arrays(tmp_path_factory.mktemp("data"))


def states_of(spec, seed=3, tasks=3):
    """The states after each task and the metrics, one task after another."""
    lane = {k: jnp.asarray(v) for k, v in lanes.complete(spec, {"seed": seed}).items()}
    run = supervised.make_run(spec)
    state, found = jax.jit(run.init)(lane, DATA), []
    task = jax.jit(run.run_task)
    states = [state]
    for number in range(tasks):
        state, measured = task(lane, state, DATA, number)
        states.append(state)
        found.append(measured)
    return states, found


@pytest.mark.long
def test_a_probe_at_the_start_is_of_the_state_before_and_the_new_task():
    spec = tiny.spec(probes=("parameter_norm:start", "gradient_norm:start", "parameter_norm"))
    states, found = states_of(spec)
    environment = spec.make_environment()
    net = network.network(spec, environment, DATA)
    key = keys.role(jax.random.key(3), keys.TASK)
    for number, measured in enumerate(found):
        before = states[number].params
        assert measured["parameter_norm:start"] == pytest.approx(
            float(probes.parameter_norm(before)), rel=1e-6
        )
        assert "parameter_norm:start/head" in measured
        batch = environment.examples(DATA, environment.task(key, DATA, number), jnp.arange(64))

        def loss(params, batch=batch):
            logits = net.apply(params, {}, batch.x, False)[0]
            return environment.loss(logits, batch).mean()

        want = float(probes.gradient_norm(loss, before))
        assert measured["gradient_norm:start"] == pytest.approx(want, rel=1e-5)
    assert found[0]["parameter_norm"] == found[1]["parameter_norm:start"]


@pytest.mark.long
def test_what_is_measured_at_start_and_end_is_traced_once(monkeypatch):
    traced = []

    def counted(snapshot):
        traced.append(snapshot)
        return {"": snapshot.loss(snapshot.params), "twice": 2 * snapshot.params["head"]["bias"][0]}

    monkeypatch.setitem(probes.PROBES, "counted", counted)
    both = tiny.spec(probes=("counted:start", "counted", "parameter_norm:start"))
    _, found = states_of(both, tasks=1)
    assert len(traced) == 1
    for alone in ("counted:start", "counted"):
        _, single = states_of(tiny.spec(probes=(alone,)), tasks=1)
        for column in (alone, f"{alone}/twice"):
            np.testing.assert_allclose(found[0][column], single[0][column], rtol=1e-6)
    assert found[0]["counted"] < found[0]["counted:start"]


def test_names_of_probes_at_the_start():
    spec = Spec(probes=("hessian_top:start",), options={"hessian_top.iterations": 5})
    assert spec.probe_names() == ("hessian_top",)
    label = metrics.of_probe("dormant_fraction:start").label
    assert label == "dormant units at the start of the task"
    for wrong in ("foo:start", "hessian_top:end", "hessian_top:start:start"):
        with pytest.raises(ValueError, match=f"unknown probe '{wrong.removesuffix(':start')}'"):
            Spec(probes=(wrong,))


@pytest.mark.long
def test_points_are_means_over_parts_of_a_task():
    """With a part for each epoch they are the epochs' own means, the last of which is reported."""
    _, found = states_of(tiny.spec(points=2), tasks=2)
    for measured in found:
        for name in ("online_accuracy", "online_loss"):
            points = measured[f"points/{name}"]
            assert points.shape == (2,)
            np.testing.assert_allclose(points[-1], measured[name], rtol=1e-6)
            np.testing.assert_allclose(points.mean(), measured[f"{name}_mean"], rtol=1e-6)
    _, each = states_of(tiny.spec(points=8), tasks=1)
    np.testing.assert_allclose(
        each[0]["points/online_loss"].reshape(2, 4).mean(1),
        found[0]["points/online_loss"],
        rtol=1e-6,
    )
    with pytest.raises(
        ValueError, match="points is 9, but a task has 8 steps: allowed are as many"
    ):
        lanes.check(tiny.spec(points=9), [{}], 64)


LISTED = {"points": (0, 1, 4), "probes": ("parameter_norm", "parameter_norm:start", "ntk")}


@pytest.mark.long
def test_chosen_points_are_what_a_shorter_task_ends_with():
    """After the four steps of the first epoch the network is that of a task of one epoch."""
    states, found = states_of(tiny.spec(**LISTED), tasks=2)
    bare, each = states_of(tiny.spec(points=8), tasks=2)
    for state, plain in zip(states, bare, strict=True):
        jax.tree.map(np.testing.assert_array_equal, state, plain)
    short = tiny.spec(epochs=1, probes=("parameter_norm", "ntk"))
    _, run_task = supervised.make_run(short)
    run_task = jax.jit(run_task)
    for number, measured in enumerate(found):
        norms = measured["points/parameter_norm"]
        assert norms.shape == (3,)
        assert len(set(norms.tolist())) == 3
        np.testing.assert_allclose(norms[0], measured["parameter_norm:start"], rtol=1e-6)
        _, ended = run_task({"seed": 3}, states[number], DATA, number)
        for name in ("parameter_norm", "parameter_norm/head", "ntk", "ntk/cosine"):
            np.testing.assert_allclose(measured[f"points/{name}"][2], ended[name], rtol=1e-5)
    for name in ("online_loss", "online_accuracy"):
        picked = each[1][f"points/{name}"][jnp.asarray([0, 1, 4])]
        np.testing.assert_array_equal(found[1][f"points/{name}"], picked)


def test_lists_of_points_are_sorted_and_refused_where_there_is_no_such_step():
    assert tiny.spec(points=[4, 0, 4, 1]).points == (0, 1, 4)
    assert tiny.spec(points=[4]) != tiny.spec(points=4)
    with pytest.raises(
        ValueError, match=r"points lists step 8, but .* 8 steps: allowed are 0 to 7"
    ):
        lanes.check(tiny.spec(points=(0, 8)), [{}], 64)
    with pytest.raises(ValueError, match=r"^points lists no steps: allowed is a count"):
        tiny.spec(points=())
    with pytest.raises(ValueError, match=r"^a step of points is -1: allowed"):
        tiny.spec(points=(0, -1))
    with pytest.raises(ValueError, match=r"^points is \(0, 1\), but in a phase of 'bandit'"):
        tiny.spec(environment="bandit", points=(0, 1))


@pytest.mark.long
def test_chosen_points_are_in_points_parquet_and_the_workdir_knows_them(dataset, tmp_path):
    def runs(points):
        spec = tiny.spec(
            dataset=dataset, tasks=4, probes=("preactivation",), points=points, probe_every=2
        )
        return [(spec, pj.grid(seed=range(2)))]

    sweep.run(runs((0, 2, 5)), workdir=tmp_path)
    table = pd.read_parquet(tmp_path / "points.parquet")
    assert table["point"].tolist() == [0, 2, 5] * 8
    assert table["online_loss"].notna().all()
    assert "preactivation/histogram" not in table  # several numbers
    measured = table[table["preactivation/size"].notna()]
    assert set(measured["task"]) == {1, 3}
    sweep.run(runs((0, 2, 5)), workdir=tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "points.parquet"), table)
    with pytest.raises(WorkdirError, match=r"points is .*, but the lanes in .* have"):
        sweep.run(runs((0, 2)), workdir=tmp_path)


@pytest.mark.parametrize("environment", ["random_labels", "permuted_pixels"])
@pytest.mark.long
def test_tasks_before_are_evaluated_with_the_parameters_of_now(environment):
    spec = tiny.spec(environment=environment, transition=None, revisit=2)
    states, found = states_of(spec)
    made = spec.make_environment()
    net = network.network(spec, made, DATA)
    key = keys.role(jax.random.key(3), keys.TASK)
    for number, measured in enumerate(found):
        for back in (1, 2):
            names = [f"revisit_{back}_accuracy", f"revisit_{back}_test_accuracy"]
            if number < back:
                assert np.isnan(measured[names[0]])
                continue
            drawn = made.task(key, DATA, jnp.int32(number - back))
            for name, examples, count in zip(
                names, (made.examples, made.test), (64, 12), strict=True
            ):
                if examples is None:
                    assert name not in measured
                    continue
                batch = examples(DATA, drawn, jnp.arange(count))
                logits = net.apply(states[number + 1].params, {}, batch.x, False)[0]
                right = (logits.argmax(1) == batch.y.argmax(1)).mean()
                assert measured[name] == pytest.approx(float(right), abs=1e-6)
    known = metrics.of_specs([spec]).scores
    assert known["revisit_1_accuracy"].label == "accuracy of the task before"
    assert known["revisit_2_accuracy"].share


@pytest.mark.long
def test_tasks_come_back(dataset):
    spec = tiny.spec(dataset=dataset, tasks=5, cycle=2, epochs=1)
    environment = spec.make_environment()
    assert [int(environment.schedule(t).task) for t in range(5)] == [0, 1, 0, 1, 0]
    table = pj.run(spec, pj.grid(seed=range(2)))
    assert table["task_number"].tolist() == [0, 1, 0, 1, 0] * 2
    assert table["part"].eq(0).all()
    assert "task_number" not in pj.run(tiny.spec(dataset=dataset, tasks=1, epochs=1))
    # labels that were learnt are known again: with a task in between, better than new ones
    longer = tiny.spec(dataset=dataset, tasks=3, cycle=1, epochs=2)
    assert pj.run(longer, pj.grid(learning_rate=0.1))["task_number"].tolist() == [0, 0, 0]
    split = Spec(environment="class_split", cycle=2, tasks=50, dataset="digits")
    split.make_environment().check(DATA.__class__(*[DATA.x] * 6, classes=10), 50)


@pytest.mark.long
def test_several_numbers_and_points_are_written_beside_the_table(dataset, tmp_path):
    spec = tiny.spec(
        dataset=dataset,
        tasks=3,
        points=4,
        probes=("feature_spectrum", "effective_rank"),
        options={"feature_spectrum.count": 10},
    )
    runs = [(spec, pj.grid(seed=range(2))), (tiny.spec(dataset=dataset, tasks=3), pj.grid(seed=5))]
    table = sweep.run(runs, workdir=tmp_path / "run")
    assert not [c for c in table if c.startswith("points/") or c == "feature_spectrum"]
    spectrum = np.load(tmp_path / "run/arrays/feature_spectrum.npy")
    assert spectrum.shape == (3, 3, 10)
    assert np.isnan(spectrum[:, 2]).all()
    p = spectrum[:, :2].astype(np.float64)
    assert (p[..., 8:] == 0).all()  # of 8 units
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)
    rank = table["effective_rank"].to_numpy().reshape(3, 3)[:2].T
    np.testing.assert_allclose(np.exp(entropy), rank, rtol=1e-4)
    points = pd.read_parquet(tmp_path / "run/points.parquet")
    assert list(points) == ["lane", "task", "seed", "point", "online_accuracy", "online_loss"]
    assert len(points) == 2 * 3 * 4
    means = points.groupby(["lane", "task"])["online_loss"].mean().to_numpy()
    np.testing.assert_allclose(means, table["online_loss_mean"][:6], rtol=1e-5)
    # and again from the checkpoints, with the same values
    sweep.run(runs, workdir=tmp_path / "run")
    np.testing.assert_array_equal(np.load(tmp_path / "run/arrays/feature_spectrum.npy"), spectrum)


@pytest.mark.long
def test_feature_spectrum_against_numpy():
    random = np.random.default_rng(0)
    h = random.normal(size=(20, 6)).astype(np.float32)
    sigma = np.linalg.svd(h, compute_uv=False)
    np.testing.assert_allclose(probes.feature_spectrum(h, 4), (sigma / sigma.sum())[:4], rtol=1e-5)
    got = probes.feature_spectrum(h, 8)
    np.testing.assert_allclose(got[:6], sigma / sigma.sum(), rtol=1e-5)
    assert (got[6:] == 0).all()
    assert (probes.feature_spectrum(np.zeros((3, 2), np.float32), 2) == 0).all()
    assert np.isnan(probes.feature_spectrum(np.full((3, 2), np.inf, np.float32), 2)).all()


def test_linearized_units_by_hand():
    before = np.ones((200, 4), np.float32)
    before[:2, 1] = -1  # positive on 99 %: linearized
    before[:3, 2] = -1  # on less
    before[:, 3] = -1
    assert probes.linearized_fraction({"h": before}) == 0.5
    assert probes.linearized_fraction({"h": before}, 0.98) == 0.75


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet18"])
@pytest.mark.long
def test_preactivations_are_what_the_activation_is_applied_to(model):
    small = {"cnn.base": 4, "cnn.dense": 8, "resnet18.base": 4}
    options = {name: n for name, n in small.items() if name.startswith(model)}
    spec = tiny.spec(model=model, norm="layer", activation="leaky_relu", options=options)
    environment = spec.make_environment()
    data = jax.tree.map(jnp.asarray, tiny.data(shape=(8, 8, 1)))
    net = network.network(spec, environment, data)
    variables = net.init(jax.random.key(0))
    params = variables.pop("params")
    batch = environment.examples(data, environment.task(jax.random.key(1), data, 0), jnp.arange(8))
    view = jax.jit(lambda params: net.view(params, variables, batch, params)._replace(batch=None))(
        params
    )
    assert list(view.preactivations) == list(view.hidden)
    for group, before in view.preactivations.items():
        np.testing.assert_allclose(
            jax.nn.leaky_relu(before), view.hidden[group], rtol=1e-5, atol=1e-6
        )
    logits = net.apply(params, variables, batch.x, False)[0]
    np.testing.assert_allclose(view.outputs, logits, rtol=1e-4, atol=1e-5)
