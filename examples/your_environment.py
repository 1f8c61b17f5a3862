"""Your environment: digits behind a picture that is another one in every task.

Run: python examples/your_environment.py (seconds)

An environment says what a task is (drawn from a key) and what its examples are. How one task turns
into the next, at once or in small steps, is not its business: that is the transition, and any that
fits can be used with it. Entered in ENVIRONMENTS, it can be run with every model, method and probe.
"""

import jax

import plasticity_jax as pj
from plasticity_jax.environments import classification
from plasticity_jax.types import Number


def veiled(*, strength: Number = 1.0) -> pj.Environment:
    """Images plus a random picture, the same for all images of a task; labels stay as they are.

    `strength` is the deviation of the picture's pixels, in those of the images. Annotated `Number`
    it is a number of the run, so that several values are trained in one compiled program.
    """

    def task(key, data, number):
        """The picture of task `number`, [H, W, C]; the key is the same for all tasks of a run."""
        return jax.random.normal(jax.random.fold_in(key, number), data.x.shape[1:])

    def behind(picture, x, labels, data):
        x = classification.normalise(x, data.mean, data.std)
        return classification.batch(x + strength * picture, labels, data.classes)

    def examples(data, picture, index):
        return behind(picture, data.x[index], data.y[index], data)

    def test(data, picture, index):
        return behind(picture, data.test_x[index], data.test_y[index], data)

    return pj.Environment(
        task,
        examples,
        test,
        shared="targets",  # example i has the same label in all tasks, so that inputs may mix
        transition="input",  # if none is named
        loss=classification.cross_entropy,
        metrics=(classification.ACCURACY,),
    )


pj.environments.ENVIRONMENTS["veiled"] = veiled
spec = pj.Spec(environment="veiled", samples=640, tasks=4, epochs=10, width=32, depth=2, probes=())
lanes = pj.grid(**{"veiled.strength": [0.5, 4.0], "granularity": [1, 10], "seed": range(2)})
table = pj.run(spec, lanes)

arms = table[table.task > 0].groupby(["veiled.strength", "granularity"])
print(
    arms[["online_accuracy_mean", "accuracy", "test_accuracy"]]
    .mean()
    .to_string(float_format="%.3f")
)
