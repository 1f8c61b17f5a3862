"""What is told of kept lanes of Joudaki et al.'s figures, and whether clones stay as foretold."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from experiments.barriers import claims, printed, redrawn, staying, trapped
from plasticity_jax.cli import launcher
from plasticity_jax.storage import table as table_

BARE = {"norm": "none", "mlp.dropout": 0.0, "mlp.norm_affine": True}


def kept(folder, name: str, arms) -> None:
    """Writes lanes of two seeds and ten tasks: each arm has its settings and (start, end) of what
    is measured, linear in between.
    """
    rows = []
    for number, (settings, measured) in enumerate(arms):
        for seed in range(3):
            for task in range(10):
                way = min(task / 5, 1)
                values = {k: a + way * (b - a) + 0.001 * seed for k, (a, b) in measured.items()}
                own = {"lane": 3 * number + seed, "seed": seed, "task": task, "finite": True}
                rows.append({**own, **settings, **values})
    table_.write(pd.DataFrame(rows), folder / f"{name}.parquet")


def test_claims_and_effects_are_told_of_lanes_that_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LANES", tmp_path)
    measured = {"online_accuracy": (0.9, 0.4), "dead_fraction": (0.2, 0.5)}
    measured |= {"duplicate_fraction": (0.0, 0.0), "saturated_fraction": (0.1, 0.1)}
    measured |= {"effective_rank": (60, 25)}
    normed = {**measured, "dead_fraction": (0.0, 0.0), "effective_rank": (60, 70)}
    batch, layer = ({**BARE, "norm": norm} for norm in ("batch", "layer"))
    dropped = ({**BARE, "mlp.dropout": 0.1}, measured)
    kept(
        tmp_path,
        "split_mlp",
        [(BARE, measured), dropped, (batch, normed), (layer, normed)],
    )
    told = claims.rows_of_claims()
    assert "| 3.2, MLP | accuracy falls (.88 to .39) | **agrees** | by +50.0 [" in told
    assert "| 3.2, MLP | dead units become more (.20 to .53) | **agrees** |" in told
    assert "| 3.3, MLP | the effective rank falls (55 to 25) | **agrees** | by +35.0 [" in told
    assert "units (none .43, batch 0, layer .02) | **agrees** | batch +50.0 [" in told
    assert "duplicates (bars: none .016, batch .001, layer .001) | **not told** |" in told
    assert "CNN" not in told
    monkeypatch.setattr(claims.presence, "POINTS", 0.6)
    assert claims.rows_of_claims().count("| **effect not present here** |") == told.count("| **")
    monkeypatch.setattr(claims.presence, "POINTS", 0.1)
    assert claims.effects() == (
        "- MLP: effect present: 3 of 3 seeds fall, from 0.701 to 0.401 on average."
    )
    rows = claims.rows_of_arms("split_mlp", claims.SPLIT).splitlines()
    assert len(rows) == 2 + 4
    assert rows[2].endswith("| 0.1 [-0.1, 0.3] | 10.1 [9.9, 10.3] | 25.0 [25.0, 25.0] |")


def test_claims_on_digits_are_judged_where_the_effect_is(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LANES", tmp_path)
    names = ("dead_fraction", "duplicate_fraction", "saturated_fraction")
    measured = {"online_accuracy": (1.0, 0.5), "effective_rank": (60, 25)}
    measured |= dict.fromkeys(names, (0.1, 0.5))
    kept_up = {**measured, "online_accuracy": (1.0, 0.9), "effective_rank": (60, 50)}
    plain = {**kept_up, "effective_rank": (60, 55)}
    arms = [(BARE, measured), ({**BARE, "mlp.dropout": 0.1}, measured)]
    for norm in ("batch", "layer"):
        arms.append(({**BARE, "norm": norm}, kept_up))
        arms.append(({**BARE, "norm": norm, "mlp.norm_affine": False}, plain))
    kept(tmp_path, "split_digits", arms)
    told = claims.rows_of_claims()
    assert "| 3.2, MLP, digits | accuracy falls (.88 to .39) | **agrees** | by +50.0 [" in told
    assert "effective rank (none 25, batch 70, layer 66) | **agrees** | batch +25.0 [" in told
    assert "(of the CNN batch 71 to 95, layer 50 to 88) | **disagrees** | batch -5.0 [" in told
    assert claims.effects().startswith(
        "- MLP on digits, learning rate 0.03: effect present: 3 of 3"
    )


def test_what_is_told_of_clones(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LANES", tmp_path)
    arms = []
    for dropout, method, end in (
        (0.0, "none", 1.0),
        (0.0, "gradient_noise", 0.6),
        (0.1, "none", 0.8),
    ):
        own = {"surgery": "clone", "cnn.dropout": dropout, "method": method}
        measured = {"clone_r2": (1.0, end - 0.002), "effective_rank": (10, 20), "loss": (1, 1)}
        arms.append((own, measured))
    arms[0][1]["clone_r2"] = (1.0, 0.9999)
    kept(tmp_path, "clone_cnn", arms)
    told = claims.rows_of_claims()
    assert "part them: 0.999 less R2 (R2 .68 and .95) | **agrees** | noise +0.4000 [" in told
    assert "noise more than dropout (R2 .68 and .95) | **agrees** | by +0.2000 [" in told
    assert "noise raises the rank of clones (120 to 203) | **not told** |" in told
    arms[2][1]["clone_r2"] = (1.0, 1.0046)  # (clones, by the same threshold)
    kept(tmp_path, "clone_cnn", arms)
    told = claims.rows_of_claims()
    assert "part them: 0.999 less R2 (R2 .68 and .95) | **disagrees** | noise +0.4000 [" in told


def test_what_is_told_of_noise_dropout_and_optimizers(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LANES", tmp_path)
    own = {"surgery": "clone", "method": "none", "mlp.dropout": 0.0}

    def measured(end: float) -> dict[str, tuple[float, float]]:
        return {"clone_r2": (1.0, end - 0.002), "effective_rank": (10, 20), "loss": (1, end)}

    ends = {"sgd": 1.0066, "momentum": 1.0066, "adam": 1.0066, "adamw": 0.9}
    arms = [({**own, "optimizer": name}, measured(end)) for name, end in ends.items()]
    kept(tmp_path, "optimizers_mlp", arms)
    shares = {0.0: 1.0066, 0.1: 0.8, 0.2: 0.85}
    arms = [({**own, "mlp.dropout": share}, measured(end)) for share, end in shares.items()]
    kept(tmp_path, "dropout_mlp", arms)
    arms = []
    for scale, decay in itertools.product((0.01, 0.02, 0.05), (0.0, 0.9, 0.99, 0.999, 1.0)):
        noise = {"gradient_noise.scale": scale, "gradient_noise.decay": decay}
        named = {**own, "method": "gradient_noise", **noise}
        arms.append((named, measured(0.9 - scale - 0.1 * decay)))
    kept(tmp_path, "noise_mlp", arms)
    told = claims.rows_of_claims()
    assert "B.11, MLP | clones stay clones: R2 less 0.999 (R2 1.000 of both) | **agrees** |" in told
    assert "decay break them: 0.999 less R2 | **disagrees** | momentum -0.0066 [" in told
    assert "B.10, MLP | dropout parts them: 0.999 less R2 | **agrees** | 0.1 +0.2000 [" in told
    assert "more of it parts them further | **disagrees** | by -0.0500 [" in told
    assert "parts clones further (decay 0.999) | **agrees** | 0.01 to 0.02 +0.0100 [" in told
    assert "parts them further (size 0.05) | **agrees** | 0.0 to 0.9 +0.0900 [" in told
    assert "step alone parts them: 0.999 less R2 | **agrees** | by +0.1100 [" in told
    rows = claims.rows_of_arms("dropout_mlp", claims.CLONES).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        "| cloned",
        "| cloned, dropout 0.1",
        "| cloned, dropout 0.2",
    ]


def test_readme_says_what_the_lanes_say():
    text = claims.README.read_text(encoding="utf-8")
    assert claims.filled(text) == text


def test_every_number_of_the_paper_is_beside_a_claim():
    told = [*claims.CLAIMS, *claims._clones("resnet18")]
    said = "\n".join(printed.beside(one.figure, one.says) for one in told)
    assert [row for row in printed.PRINTED if f"({row[-1]})" not in said] == []
    assert printed.beside("B.10, MLP", "dropout parts them") == "dropout parts them"


QUICK = ("3.2", "5.1_mlp_01", "B.12")  # several runs; as long as the shortest; arms in words
FIGURES = [
    pytest.param(one, id=one.name, marks=() if one.name in QUICK else pytest.mark.long)
    for one in redrawn.REDRAWN
]


@pytest.mark.parametrize("one", FIGURES)
def test_tables_of_redrawn_figures_are_of_the_kept_lanes(one, tmp_path):
    committed = redrawn.RESULTS / f"figure_{one.name}_final.csv"
    made = redrawn.draw(one, tmp_path, picture=False)
    assert made.read_text() == committed.read_text()
    assert committed.with_name(f"figure_{one.name}.png").exists()
    course = pd.read_csv(committed.with_name(f"figure_{one.name}.csv"))
    assert set(course["arm"]) == set(pd.read_csv(committed)["arm"])


@pytest.mark.parametrize("name", printed.ENDS)
def test_a_figure_has_the_papers_numbers_beside_ours(name):
    table = pd.read_csv(redrawn.RESULTS / f"figure_{name}_final.csv").set_index(["arm", "metric"])
    told = table["paper"].dropna()
    assert told.to_dict() == printed.ENDS[name]


def test_records_name_no_folder_of_a_machine():
    for path in claims.LANES.glob("*.json"):
        assert not re.search(r"/(tmp|home|root)/", path.read_text(encoding="utf-8")), path


def test_noise_is_in_proportion_to_the_norm_of_each_tensor():
    tree = {"a": jnp.full((100, 40), 3.0), "b": jnp.zeros(5)}
    tx = staying.noise(0.5)
    noisy, key = tx.update(tree, tx.init(tree), None)
    size = 0.5 * float(optax.tree.norm(tree["a"]))
    assert float((noisy["a"] - tree["a"]).std()) == pytest.approx(size, rel=0.05)
    assert not noisy["b"].any()
    assert not np.array_equal(*map(jax.random.key_data, (key, tx.init(tree))))


@pytest.mark.long
@pytest.mark.usefixtures("compiled_quickly")
def test_clones_of_an_mlp_stay_or_part_as_foretold(tmp_path, capsys, monkeypatch):
    ways = {name: staying.WAYS[name] for name in ("Adam", "noise")}
    monkeypatch.setattr(staying, "WAYS", ways)
    assert staying.main(["--scale=smoke", f"--workdir={tmp_path}"]) == 0
    assert "2 of 2 foretold." in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "staying.csv").set_index("training")
    assert list(table["parted"]) == [False, True]
    assert (tmp_path / "staying.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--dataset=mnits"], 2, "Unknown dataset 'mnits'"),
        (["--dataset=arrays:nowhere"], 1, "nowhere"),
        (["--data=x"], 2, "allowed are --workdir=DIR, --dataset, --scale and --help."),
    ],
)
def test_data_that_clones_cannot_be_trained_on_are_refused(
    arguments, code, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(launcher, "prepare_jax", lambda *_: None)
    assert staying.main([*arguments, f"--workdir={tmp_path / 'run'}"]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not (tmp_path / "run" / "staying.csv").exists()


def test_since_when_a_layer_is_nearest_to_a_trap(tmp_path, capsys):
    rows = {
        "lane": 0,
        "seed": 0,
        "finite": True,
        "task": range(4),
        "trap": [0.5, 0.3, 0.2, 0.1],
        "trap/layer": [0, 1, 1, 1],
        "trap/h0": [0.5, 0.6, 0.7, 0.8],
        "trap/h1": [0.9, 0.3, 0.2, 0.1],
        "trap/curvature": [1.0, -1.0, 2.0, 3.0],
        "trap/frozen": [0.4, 0.3, 0.2, 0.0],
        "trap/frozen_layer": [1, 1, 0, 1],
        "trap/manifold": [0.0, 1.0, 1.0, 1.0],
        "trap/frozen_distance": [0.9, 0.05, 0.04, 0.03],
        "trap/frozen_distance/h0": [0.9, 0.05, 0.5, 0.5],
        "trap/frozen_distance/h1": [0.95, 0.5, 0.04, 0.03],
        "mlp.dropout": 0.0,
    }
    first = pd.DataFrame(rows)
    again = first.assign(lane=1, seed=1, **{"trap/curvature": -1.0, "trap": 0.3})
    # of a network that diverged nothing is said
    gone = first.assign(lane=2, seed=2, trap=[0.5, np.nan, np.nan, np.nan])
    other = first.assign(lane=3, **{"mlp.dropout": 0.1, "trap/h0": 0.0})
    table_.write(pd.concat([first, again, gone, other]), tmp_path / "results.parquet")
    assert trapped.main([f"--from={tmp_path}", f"--workdir={tmp_path / 'said'}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert "the nearer trap is that of frozen units (2 lanes) since task 1; nearest to" in said[2]
    assert said[2].endswith("frozen in h1, at 0.03.")
    assert (
        "nearest in h1 (2 lanes), at 0.2 since task 1, held in 1; nearest to frozen, a" in said[0]
    )
    assert "nearest in h0 (1 lanes), at 0.1 since task 0, held in 1" in said[1]
    found = pd.read_csv(tmp_path / "said" / "trapped.csv")
    assert list(found["held_since"]) == [2, 0, 2]
    assert list(found["frozen_since"]) == [3, 3, 3]
    assert list(found["frozen_nearest_since"]) == [2, 2, 2]
    table_.write(first.drop(columns=list(trapped.LATER)), tmp_path / "results.parquet")
    assert trapped.main([f"--from={tmp_path}"]) == 0  # (of an older run)
    assert len(capsys.readouterr().out.splitlines()) == 1
    table_.write(first.drop(columns="trap"), tmp_path / "results.parquet")
    for argv, code, words in (
        ([f"--from={tmp_path}"], 1, "the run lacks trap: allowed are runs with --probes=trap."),
        ([f"--from={tmp_path / 'none'}"], 1, "No such file or directory"),
        (["--seeds=3"], 2, "allowed are --from=DIR and --workdir=DIR."),
    ):
        assert trapped.main(argv) == code
        assert words in capsys.readouterr().err
