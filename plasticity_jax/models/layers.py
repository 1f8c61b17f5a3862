"""Layers that several models use: initialization as PyTorch, He or LeCun have it, activation,
dropout.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from plasticity_jax import registry
from plasticity_jax.models.cpu import draws
from plasticity_jax.models.norms import NORMS
from plasticity_jax.types import Array

DEEPEST = 1000  # a program is as long as its network is deep: more would take hours to compile
LARGEST = {"depth": DEEPEST, "blocks": DEEPEST, "patch": 2**12}  # of whole numbers by name


def _torch_bias(fan_in: int):
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


# name -> (kernel initializer, fan_in -> bias initializer). "torch" is PyTorch's default for
# nn.Linear and nn.Conv2d: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and bias, a variance of 1
# / (3 fan_in).
INITIALIZATIONS = {
    "torch": (initializers.variance_scaling(1 / 3, "fan_in", "uniform"), _torch_bias),
    "he": (initializers.he_normal(), lambda fan_in: initializers.zeros),
    "he_uniform": (initializers.he_uniform(), lambda fan_in: initializers.zeros),
    "lecun": (initializers.lecun_normal(), lambda fan_in: initializers.zeros),
}


def dense(x: Array, features: int, initialization: str, name: str, noisy: bool = False) -> Array:
    """Returns a named dense layer of `x` [..., in] -> [..., features], inside an `nn.compact`
    call; see `NoisyDense` for what `noisy` means.
    """
    kernel, bias = INITIALIZATIONS[initialization]
    kind = NoisyDense if noisy else nn.Dense
    return kind(features, kernel_init=kernel, bias_init=bias(x.shape[-1]), name=name)(x)


NOISE = "noise"  # what the key is called with which layers draw
LOUDNESS = 0.5  # of noise at first, times the root of what a unit reads: Fortunato et al.


class NoisyDense(nn.Module):
    """A dense layer whose weights have noise of a size that is learned.

    Weights are w + s f(e) f(e') and biases b + s' f(e'), with f(e) = sign(e) sqrt(|e|), normal e
    for each input and e' for each output, the same for all examples of a call; s and s' begin at
    0.5 / sqrt(inputs) and are parameters beside `kernel` and `bias`, called `kernel_noise` and
    `bias_noise`. Without a key called `noise` there is none. Source: Fortunato et al. 2018,
    factorised noise.
    """

    features: int
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns [..., features] of `x` [..., in]."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, shape[1:])
        loud = initializers.constant(LOUDNESS * shape[0] ** -0.5)
        of_kernel = self.param("kernel_noise", loud, shape)
        of_bias = self.param("bias_noise", loud, shape[1:])
        if self.has_rng(NOISE):
            keys = jax.random.split(self.make_rng(NOISE))
            read, given = (
                _rooted(key, size, x.dtype) for key, size in zip(keys, shape, strict=True)
            )
            kernel = kernel + of_kernel * jnp.outer(read, given)
            bias = bias + of_bias * given
        return x @ kernel + bias.reshape(*[1] * (x.ndim - 1), -1)


def _rooted(key: Array, size: int, dtype: Any) -> Array:
    noise = jax.random.normal(key, (size,))
    return (jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))).astype(dtype)


def of_rows(x: Array, function: Callable[[Array], Array]) -> Array:
    """Returns `function` of `x` [..., in] as rows [N, in], shaped back to [..., out].

    On a CPU the gradient of a product with a kernel is much faster where it contracts one axis, not
    several.
    """
    rows = function(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], -1)


def heads(x: Array, count: int) -> Array:
    """Returns [B * count, tokens, size] from [B, tokens, count * size]: each head of each example.

    On a CPU products over one axis of batches are much faster than over two.
    """
    parted = by_head(x, count)
    return parted.reshape(-1, *parted.shape[2:])


def by_head(x: Array, count: int) -> Array:
    """Returns [B, count, tokens, size] from [B, tokens, count * size]."""
    return x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)


def joined(x: Array, count: int) -> Array:
    """Returns [B, tokens, count * size] from `count` heads of each example, [B * count, tokens,
    size].
    """
    parted = x.reshape(-1, count, *x.shape[1:]).transpose(0, 2, 1, 3)
    return parted.reshape(*parted.shape[:2], -1)


def sow(module: nn.Module, group: str, activations: Array, before: Array | None = None) -> None:
    """Makes `activations` readable from outside as `group`, which must not be the name of a
    submodule, and what was there `before` the activation function.
    """
    parts = {"hidden": activations, "preactivations": before}
    for collection, values in parts.items():
        if values is not None:
            module.sow(
                collection,
                group,
                values,
                reduce_fn=_newer,
                init_fn=functools.partial(_as_is, values),
            )


def _newer(old: Array, new: Array) -> Array:
    del old
    return new


def _as_is(values: Array) -> Array:
    return values


def activated(module: nn.Module, group: str, x: Array, activation: str) -> Array:
    """Returns the activation of `x` [..., H], both readable from outside as `group`."""
    units = shifted(module, group, ACTIVATIONS[activation](x))
    sow(module, group, units, x)
    return units


def shifted(module: nn.Module, group: str, units: Array) -> Array:
    """Returns activations with what the collection "shifts" has as `group` added, as they are if it
    has nothing: so a loss is differentiated by activations.
    """
    if module.has_variable("shifts", group):
        return units + module.get_variable("shifts", group)
    return units


def crelu(x: Array) -> Array:
    """Returns [relu(x), relu(-x)], [..., 2H]. Source: Shang et al. 2016; Abbas et al. 2023 for
    plasticity.
    """
    return jnp.concatenate([nn.relu(x), nn.relu(-x)], axis=-1)


def copies(activation: str) -> int:
    """Returns how many activations a unit has."""
    return 2 if activation == "crelu" else 1


def gelu(x: Array) -> Array:
    """Returns the exact GELU, x times the normal distribution function, as PyTorch has it."""
    return nn.gelu(x, approximate=False)


def _identity(x: Array) -> Array:
    return x


ACTIVATIONS = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "tanh": nn.tanh,
    "gelu": gelu,
    "selu": nn.selu,
    "elu": nn.elu,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "identity": _identity,
    "crelu": crelu,
}


class Dropout(nn.Dropout):
    """Flax's dropout with the same numbers, drawn faster on a CPU."""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Returns the inputs with a share of them set to 0."""
        key = draws.as_usual(self.make_rng(self.rng_collection))
        return super().__call__(inputs, rng=key)


def dropped(x: Array, rate: float, train: bool) -> Array:
    """Returns `x` with a share `rate` of its values set to 0 and the others divided by 1 - rate, in
    training; as it is in evaluation, and where the rate is 0.

    Draws from the collection "dropout". Source: Srivastava et al. 2014.
    """
    return Dropout(rate, deterministic=False)(x) if rate and train else x


class Model(nn.Module):
    """What all models share: their settings are checked when one is made, by hand or by its
    factory.

    Whole numbers are those from 1, `dropout` is below 1; `norm`, `activation` and `initialization`
    are names in NORMS, ACTIVATIONS and INITIALIZATIONS. Raises ValueError, one sentence with what
    was given and what is allowed.

    Class attributes:
      CHOICES: {field: what it may be}, of settings that are a model's own.
      CRELU: whether the activation may be "crelu", which doubles the units.
      KNOWN_AS: its name in the registry, where that is not the class's in small letters.
    """

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    CRELU: ClassVar[bool] = True
    KNOWN_AS: ClassVar[str] = ""

    @classmethod
    def own_name(cls) -> str:
        """Returns the name of the model in the registry."""
        return cls.KNOWN_AS or cls.__name__.lower()

    def __post_init__(self):
        """Checks the fields, and makes Python's numbers of those of numpy and jax."""
        own = self.own_name()
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is int:
                most = LARGEST.get(name, registry.LARGEST_WHOLE)
                object.__setattr__(self, name, int(registry.whole(f"{own}.{name}", value, 1, most)))
            elif field.type is bool:
                registry.one_of(f"{own}.{name}", value, (True, False))
            elif field.type is float:
                object.__setattr__(self, name, _rate(f"{own}.{name}", value))
            elif name in _NAMED:
                registry.lookup(_NAMED[name], name, value)
            elif name in self.CHOICES:
                registry.one_of(f"{own}.{name}", value, self.CHOICES[name])
            if name == "activation" and not self.CRELU:
                registry.one_of(
                    f"activation of {own}",
                    value,
                    [known for known in ACTIVATIONS if known != "crelu"],
                )
        super().__post_init__()


def check_not_noisy(model: Any) -> None:
    """Raises ValueError if a model that is to be cloned has noisy layers: the noise of clones would
    part them.
    """
    if model.noisy:
        raise ValueError(
            f"{model.own_name()}.noisy is True: allowed with clones of units is False."
        )


def _rate(name: str, value: Any) -> float:
    """A share of values that are dropped, as a float."""
    allowed = "numbers from 0 to below 1"
    found = registry.number(name, value, allowed)
    if not 0 <= found < 1:
        raise ValueError(f"{name} is {registry.shown(value)}: allowed are {allowed}.")
    return found


_NAMED: dict[str, Mapping[str, Any]] = {
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "initialization": INITIALIZATIONS,
}
