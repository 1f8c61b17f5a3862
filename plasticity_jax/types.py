"""The contracts: what passes between streams, models, methods and probes. Every other module is
written against these.

Two kinds of settings run through everything. A *number* only enters arithmetic, is traced, and may
differ between the lanes of one compiled program; an *option* changes shapes or control flow and is
fixed when the program is compiled.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Key = jax.Array
FIXED = 2**31
"""Folded into a run's key of tasks for what is fixed over the run; tasks have smaller numbers."""
PyTree = Any
Number = float | jax.Array
"""Annotation of a traced setting that is 0 or more: a float in Python, possibly a tracer inside a
program.
"""

Share = Annotated[float | jax.Array, "0 to 1"]
"""Annotation of a traced setting from 0 to 1 (see `registry.numbers`)."""

Real = Annotated[float | jax.Array, "any"]
"""Annotation of a traced setting that may be negative."""

Whole = Annotated[int | jax.Array, "whole, 1 or more"]
"""Annotation of a traced setting that says how often: a whole number from 1, or "never"."""

Period = Annotated[int, "steps"]
"""Annotation of an option that says after how many steps: a whole number from 0, or "never"."""

Lane = Mapping[str, Any]
"""One run's numbers by name: `seed`, `granularity`, `learning_rate`, `transition_fraction`, and
`<part>.<number>`.
"""

Optimizer = optax.GradientTransformationExtraArgs
Method = Callable[[optax.GradientTransformation], Optimizer]
"""An intervention: optimizer -> optimizer. Its update reads the extra argument `ctx`, a `Context`.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset on the device; an argument of every compiled program, never a constant in it.

    Attributes:
      x: [N, H, W, C] uint8 inputs; normalized inside the step as (x - mean) / std.
      y: [N] int32 labels in 0..classes-1.
      test_x, test_y: [M, H, W, C] and [M], M may be 0.
      mean, std: [C] float32 in raw pixel units.
      classes: number of classes (static).
    """

    x: Array
    y: Array
    test_x: Array
    test_y: Array
    mean: Array
    std: Array
    classes: int = dataclasses.field(metadata={"static": True})


class Text(NamedTuple):
    """What a sequence-to-sequence model reads; id 0 is padding.

    Attributes:
      source: [B, S] int32 ids for the encoder.
      inputs: [B, T] int32 ids for the decoder: the targets shifted right, a start id first.
    """

    source: Array
    inputs: Array


class Batch(NamedTuple):
    """Examples as the loss sees them.

    Attributes:
      x: [B, ...] float32 inputs, or a Text.
      y: [B, C] target distributions (rows sum to 1), or [B, T] int32 target ids of texts.
      weight: [B] or [B, T] 1 where an example or a position counts, 0 where it pads.
      active: [B, C] bool, the outputs that count for an example; None: all of them.
    """

    x: Any
    y: Array
    weight: Array
    active: Array | None = None


class Metric(NamedTuple):
    """What the numbers in a column of results are: all that tables and figures need to know of a
    metric or a probe.

    Attributes:
      name: the column; empty where it is named elsewhere, as a probe is in its registry.
      label: in words, e.g. "BLEU-2"; empty: the name's words.
      better: "higher" or "lower"; None where neither is, or where nobody says.
      share: whether it is a share of 1, shown in percent on an axis from 0 to 1.
      chance: data -> the value reached without a look at the inputs, in the metric's own unit, or
        None where there is none. For held-out examples `data` has those as x and y.
      of: (outputs, Batch) -> [B] or [B, T] the score of each example or position; None where it is
        computed otherwise.
    """

    name: str = ""
    label: str = ""
    better: str | None = None
    share: bool = False
    chance: Callable[[Data], float | None] | None = None
    of: Any = None

    def guess(self, data: Data) -> float | None:
        """Returns the value of guessing, None where there is none."""
        return None if self.chance is None else self.chance(data)


class Decoding(NamedTuple):
    """How texts are generated and scored at the end of a task, over a whole set of examples.

    Attributes:
      start, end: the id that a decoder begins with, and the one after which a text is over.
      length: ids generated at most, `end` included.
      beams: width of beam search; 1 is greedy decoding.
      samples: examples decoded at most, the first ones of a set.
      counts: (ids [B, length], y [B, T]) -> [B, k] what is summed over examples.
      score: sums [k] -> [] the score.
      metric: what the score is called, e.g. "bleu2".
      special: (what it means, id) of the ids that are no text, where others are pieces of words, so
        that a pretrained network can tell whether they are its own; empty where it does not matter.
    """

    start: int
    end: int
    length: int
    beams: int
    samples: int
    counts: Callable[[Array, Array], Array]
    score: Callable[[Array], Array]
    metric: Metric
    special: tuple[tuple[str, int], ...] = ()


class Stage(NamedTuple):
    """What one compiled unit of training is of: a task, or one of several equal parts of it.

    Attributes:
      task: [] int32, which task; a task that comes back has the number that it had.
      part, parts: the part of the task, from 0, and how many it has. The transition and the order
        in which examples change over are of the whole task, which begins at part 0.
    """

    task: Any
    part: Any = 0
    parts: int = 1


def one_after_another(number: Array | int) -> Stage:
    """Returns the usual schedule: stage t is task t, whole."""
    return Stage(number)


class Moved(NamedTuple):
    """What a step of a world gives.

    Attributes:
      seen: what there is to act on next, as it is kept; of a new episode where one ended.
      state: of the world.
      reward: [] float32.
      terminated, truncated: [] bool, whether the episode ended by itself, or was only cut.
      score: [] float32, what counts for the return where that is not the reward.
    """

    seen: PyTree
    state: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    score: Array | None = None


class World(NamedTuple):
    """What an agent acts in, as pure functions of one copy of it.

    Attributes:
      reset: (key, data, task) -> (what is seen, state) at the beginning of an episode.
      step: (key, data, task, state, action [] int32) -> Moved. A world that ends an episode begins
        the next one in the same step.
      view: (data, seen [B, ...]) -> [B, ...] float32 what a network reads.
      actions: data -> how many actions there are, numbered from 0.
    """

    reset: Callable[[Key, Data, PyTree], tuple[PyTree, PyTree]]
    step: Callable[[Key, Data, PyTree, PyTree, Array], Moved]
    view: Callable[[Data, PyTree], Array]
    actions: Callable[[Data], int]


class Environment(NamedTuple):
    """A distribution over tasks on a dataset. All functions are pure, so any task can be redrawn
    from its key.

    Attributes:
      task: (key, data, t [] int32) -> pytree that defines task t of a run (labels, a permutation,
        ...). The key is the run's own, the same for all t: what is drawn for task t is drawn from
        fold_in(key, t), what is fixed over the run from fold_in(key, FIXED).
      examples: (data, task, index [B]) -> Batch of that pure task.
      test: (data, task, index [B]) -> Batch of held-out examples of that task, or None where none
        can exist.
      shared: what example i has in common in any two tasks: "inputs", "targets" or "nothing";
        decides which transitions fit, as does `targets`.
      loss: (outputs [B, C], Batch) -> [B] loss per example; of texts ([B, T, V], Batch) -> [B, T]
        per position.
      metrics: the scores of outputs, the first of which is the main one and measured during
        training as well.
      inputs: what a model must be able to read: "images", "vectors" or "text".
      outputs: data -> how many outputs a model gives.
      decoding: how texts are generated and scored, or None.
      loss_metric: what is known of the loss.
      schedule: number of a stage [] int32, from 0 -> Stage; see `one_after_another`.
      data: what it draws its examples from: "labels" (inputs with a class each), "numbers" (inputs
        with real targets), or "nothing".
      targets: what the y of examples are: "distributions" over classes (rows sum to 1), "ids" of
        texts, or any other word, such as "numbers" [B, T], which no transition may mix with uniform
        ones.
      size, test_size: data -> how many examples a task has, and how many held-out ones.
      transition: the name of the transition that is taken where none is named.
      check: (data, tasks) -> None; raises ValueError, one sentence, if the environment cannot make
        so many tasks of these data.
      world: what an agent acts in during a task, which is then a phase of steps; None where
        examples are given. Targets of its batches are values of actions [B, actions], `active` is
        the action that was taken.
      scores: what acting in the world measures, the first of which a run is judged by.
      augment: (key, data, x [B, ...]) -> x, how inputs are changed anew in every training step, but
        not when they are evaluated; None where they are not.
    """

    task: Callable[[Key, Data, Array], PyTree]
    examples: Callable[[Data, PyTree, Array], Batch]
    test: Callable[[Data, PyTree, Array], Batch] | None
    shared: str
    loss: Callable[[Array, Batch], Array]
    metrics: tuple[Metric, ...]
    inputs: str = "images"
    outputs: Callable[[Data], int] = lambda data: data.classes
    decoding: Decoding | None = None
    loss_metric: Metric = Metric("loss", better="lower")
    schedule: Callable[[Array | int], Stage] = one_after_another
    data: str = "labels"
    targets: str = "distributions"
    size: Callable[[Data], int] = lambda data: len(data.x)
    test_size: Callable[[Data], int] = lambda data: len(data.test_x)
    transition: str = "abrupt"
    check: Callable[[Data, int], None] = lambda data, tasks: None
    world: World | None = None
    scores: tuple[Metric, ...] = ()
    augment: Callable[[Key, Data, Array], Array] | None = None


class Head(NamedTuple):
    """How a network's outputs are read and scored, between environment and model.

    Attributes:
      targets: what an environment's targets must be, as `Environment.targets` has it, or
        "anything".
      outputs: the environment's number of outputs -> the model's.
      loss: (the environment's loss, the model's outputs [B, ...], Batch) -> [B] loss per example;
        None where it is the environment's.
      read: the model's outputs -> the environment's, of which its metrics are.
      metrics: what is measured besides, of the model's outputs.
      bootstrap: (the model's outputs at what was seen next [B, ...], action taken there [B],
        reward [B], discount [B]) -> targets as the loss takes them; None: reward + discount * the
        value that `read` gives of the action.
    """

    targets: str = "anything"
    outputs: Callable[[int], int] = lambda numbers: numbers
    loss: Callable[[Callable[[Array, Batch], Array], Array, Batch], Array] | None = None
    read: Callable[[Array], Array] = lambda outputs: outputs
    metrics: tuple[Metric, ...] = ()
    bootstrap: Callable[[Array, Array, Array, Array], Array] | None = None


class Transition(NamedTuple):
    """How two paired tasks mix while one turns into the other.

    Attributes:
      mix: (old Batch, new Batch, alpha [], rank [B]) -> Batch. `alpha` in (0, 1] is the share of
        the new task; `rank` in (0, 1) is each example's place in the order in which examples change
        over, fixed within a task. At alpha = 1 the result equals `new` bit for bit.
      needs: what the two tasks must share: "inputs", "targets" or "nothing".
      targets: what targets must be, as in `Environment`, or "anything".
      gradual: False if `mix` is the new task whatever the coefficient, so that the old one need not
        be made.
    """

    mix: Callable[[Batch, Batch, Array, Array], Batch]
    needs: str
    targets: str = "anything"
    gradual: bool = True


class UnitGroup(NamedTuple):
    """Where a layer's hidden units live in the parameter tree, as paths of keys.

    Attributes:
      made_by: path of the layer that computes the units (`kernel` [..., in, H], `bias` [H]).
      norm: path of the normalization between that layer and the activation, or None.
      feeds: path of the layer that reads them (`kernel` [..., m * H, out], unit index fastest; m >
        1 where an activation copies units, as CReLU, or positions are flattened).
      copies: how many activations a unit has (2 with CReLU), unit index fastest.
    """

    made_by: tuple[str, ...]
    norm: tuple[str, ...] | None
    feeds: tuple[str, ...]
    copies: int = 1


class Structure(NamedTuple):
    """What a method may know of the network it acts on.

    Attributes:
      units: {group name: UnitGroup} of the units that may be recycled; group names are keys of
        `Context.hidden`.
      init: key -> freshly initialized params.
      head: path of the output layer in the parameter tree; None where it shares its weights.
    """

    units: Mapping[str, UnitGroup]
    init: Callable[[Key], PyTree]
    head: tuple[str, ...] | None = None

    def fresh(self, key: Key, group: str, unit: Array) -> PyTree:
        """Returns freshly drawn incoming weights of one unit: {"kernel": [..., in], "bias": []}.

        They are those that `init(key)` draws for it; inside a compiled program no other layer is
        drawn. `unit` is [] int32, from 0 to the number of units less 1.
        """
        layer = self.init(key)
        for part in self.units[group].made_by:
            layer = layer[part]
        return {name: jnp.take(weights, unit, axis=-1) for name, weights in layer.items()}


class Context(NamedTuple):
    """What a method may look at besides gradients and params: the extra argument `ctx` of every
    update.

    Attributes:
      key: fresh for this step.
      step: [] int32, optimizer steps taken since initialization; the same for all lanes.
      boundary: [] bool, first step of a new task. Only for methods that are told; they say so.
      hidden: {group: [B, ..., m * H]} activations of this step's batch, of all groups that the
        model has.
      gradient: of the loss on this step's batch, like params, before penalties on the parameters
        and the optimizer; None where a loop of one's own does not give it.

    A step is one update of the optimizer, and a method remembers nothing of an update that is
    thrown away. So what may throw one away belongs inside a method, which then sees every call:
    `method(optax.MultiSteps(optimizer, k))`, `method(optax.apply_if_finite(optimizer, n))`. In
    `optax.MultiSteps(method(optimizer), k)` a step is what k calls make: give all of them `step =
    call // k` and `boundary = call // k == first // k`, where `first` is the task's first call; the
    method then acts at the next update. With the call's own boundary a task change at another call
    would be lost.
    """

    key: Key
    step: Array
    boundary: Array
    hidden: Mapping[str, Array]
    gradient: PyTree = None


class Start(NamedTuple):
    """What a method may look at before the first step of a task, which is not the first task.

    Attributes:
      key: fresh for this task.
      task: [] int32, number of the stage that begins.
      initial: parameters at initialization.
      gradient: params -> gradient of the loss on the first batch of the new task, like params.
      structure: what is known of the network.
    """

    key: Key
    task: Array
    initial: PyTree
    gradient: Callable[[PyTree], PyTree]
    structure: Structure


class View(NamedTuple):
    """A network on one batch.

    Attributes:
      batch: the examples.
      outputs: [B, C] or [B, T, V] logits.
      hidden: {group: [B, ..., m * H]} activations, in the order of the layers.
      preactivations: {group: [B, ..., H]} what the activation function was applied to, normalized
        where there is a norm; of those groups that an activation function made.
      params, initial: parameters now, and at initialization.
      features: params -> {group: activations} of the same examples through other parameters, in a
        training step; None elsewhere.
      loss: params -> [] the mean loss on them, without what methods add, in a training step; None
        elsewhere.
    """

    batch: Batch
    outputs: Array
    hidden: Mapping[str, Array]
    preactivations: Mapping[str, Array]
    params: PyTree
    initial: PyTree
    features: Callable[[PyTree], Mapping[str, Array]] | None = None
    loss: Callable[[PyTree], Array] | None = None


class Snapshot(NamedTuple):
    """What a probe may look at: the end of a task, with functions on a fixed batch of the task just
    ended.

    Attributes:
      params, previous, initial: parameters now, at the end of the task before, and at
        initialization.
      loss: params -> [] mean loss on the probe batch (normalization statistics as in evaluation).
      hidden: {group: [N, ..., H]} activations of the probe batch now, in the order of the layers.
      linear: names of those groups that no activation function made, which have no dormant units.
      previous_hidden: the same inputs through the network as it was at the end of the task before.
      key: for probes that draw.
      view: (params, count) -> View of the first `count` examples of the probe batch, of all where
        it is not given, through these parameters; what no probe asks for is not computed.
      activation: the network's activation function.
      unit_gradients: params -> {group: [N, ..., H]} gradient of the loss by each activation, of
        those groups that an activation function made.
      units: the unit groups of the network.
    """

    params: PyTree
    previous: PyTree
    initial: PyTree
    loss: Callable[[PyTree], Array]
    hidden: Mapping[str, Array]
    previous_hidden: Mapping[str, Array]
    key: Key
    linear: frozenset[str] = frozenset()
    view: Callable[..., View] | None = None
    activation: Callable[[Array], Array] | None = None
    unit_gradients: Callable[[PyTree], Mapping[str, Array]] | None = None
    units: Mapping[str, UnitGroup] | None = None


Probe = Callable[[Snapshot], "Array | dict[str, Array]"]
"""Snapshot -> [] number, or {"": the number, detail name: number}; details become columns
`probe/detail`.
"""


class Recipient(NamedTuple):
    """The run that a network goes on in after surgery.

    Attributes:
      model: its model, as `Surgery.model` makes it.
      shapes: () -> the state that it would draw itself, as shapes.
    """

    model: Any
    shapes: "Callable[[], TrainState]"


class Surgery(NamedTuple):
    """What is done to a trained network before a run begins from it.

    Attributes:
      operate: (key, state, Recipient) -> state, of a lane that ended. One that changes sizes gives
        parameters, other variables, initial parameters and the optimizer's state of the new sizes.
        The state has () for that of an optimizer that starts afresh.
      model: the model of the Spec's sizes, which are those of the lane that ended -> the model of
        what `operate` gives.
    """

    operate: "Callable[[Key, TrainState, Recipient], TrainState]"
    model: Callable[[Any], Any] = lambda model: model


class TrainState(NamedTuple):
    """One lane between two steps. The clock is not in it, so that it stays unbatched under vmap.

    Attributes:
      params: trainable parameters.
      variables: other collections of the model (running statistics of batch norm), {} if there are
        none.
      initial: params at initialization.
      opt: state of optimizer and methods.
    """

    params: PyTree
    variables: PyTree
    initial: PyTree
    opt: PyTree


class AgentState(NamedTuple):
    """One lane of an agent between two phases. Its world is not in it: a phase begins with a reset.

    Attributes:
      train: the network that acts and learns, with its optimizer.
      target: {"params", "variables"} of the network that values what is seen next.
      replay: what the agent remembers, see `agents.replay`.
    """

    train: TrainState
    target: PyTree
    replay: PyTree

    @property
    def params(self) -> PyTree:
        """Trainable parameters."""
        return self.train.params

    @property
    def variables(self) -> PyTree:
        """Other collections of the model."""
        return self.train.variables

    @property
    def initial(self) -> PyTree:
        """Parameters at initialization."""
        return self.train.initial
