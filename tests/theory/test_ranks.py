"""Ranks near collapse: alpha against values in closed form and Monte Carlo, the formula against
simulation.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy import integrate

from plasticity_jax.models import ACTIVATIONS
from plasticity_jax.theory import ranks

RELU, TANH, GELU = (ACTIVATIONS[name] for name in ("relu", "tanh", "gelu"))


def test_alpha_of_relu_in_closed_form():
    """With z + b: E f' is Phi(b), E f^2 is (1 + b^2) Phi(b) + b phi(b)."""
    for b in (-4.0, -1.0, 0.0, 1.0, 2.0):
        inside, density = scipy.stats.norm.cdf(b), scipy.stats.norm.pdf(b)
        square = (1 + b**2) * inside + b * density
        assert ranks.alpha(RELU, shift=b) == pytest.approx(inside / square - 1, abs=1e-8)
        mean = b * inside + density
        centred = inside / (square - mean**2) - 1
        assert ranks.alpha(RELU, shift=b, centred=True) == pytest.approx(centred, abs=1e-7)


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
def test_alpha_of_tanh_by_adaptive_quadrature(scale):
    def expected(function):
        def weighted(z):
            return function(z) * scipy.stats.norm.pdf(z)

        return 2 * sum(
            integrate.quad(weighted, *ends, epsabs=1e-13)[0]
            for ends in ((0, 0.01), (0.01, 0.1), (0.1, 1), (1, 12))
        )

    slope = expected(lambda z: (scale / np.cosh(np.minimum(scale * z, 300)) ** 2) ** 2)
    square = expected(lambda z: np.tanh(scale * z) ** 2)
    assert ranks.alpha(TANH, scale) == pytest.approx(slope / square - 1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "plain", "centred"),
    [
        ("relu", 0.0, 0.4669),
        ("tanh", 0.1778, 0.1778),
        ("gelu", 0.0720, 0.3188),
        ("sigmoid", -0.847, None),
        ("elu", 0.036, None),
        ("identity", 0.0, 0.0),
    ],
)
def test_alpha_of_the_usual_functions(name, plain, centred):
    assert ranks.alpha(ACTIVATIONS[name]) == pytest.approx(plain, abs=6e-4)
    if centred is not None:
        assert ranks.alpha(ACTIVATIONS[name], centred=True) == pytest.approx(centred, abs=6e-5)


def test_what_alpha_is_of():
    """The correlation of two units after a function, by Monte Carlo."""
    random, eps, samples = np.random.default_rng(0), 0.01, 400_000
    x, other = random.normal(size=(2, samples))
    y = (1 - eps) * x + np.sqrt(1 - (1 - eps) ** 2) * other
    left, right = np.asarray(GELU(jnp.asarray(x))), np.asarray(GELU(jnp.asarray(y)))
    found = 1 - np.corrcoef(left, right)[0, 1]
    assert found == pytest.approx((1 + ranks.alpha(GELU, centred=True)) * eps, rel=0.02)


def test_a_function_whose_alpha_grows_is_frozen_in_the_end():
    """Corollary 3.1: tanh(az) and ReLU(z + b)."""
    steep = [ranks.frozen_probability(TANH, a) for a in (1.0, 10.0, 100.0)]
    assert steep == sorted(steep)
    # |a / cosh(az)^2| < 1e-4 where |z| > arcosh(sqrt(a / 1e-4)) / a
    edge = np.arccosh(np.sqrt(100 / 1e-4)) / 100
    assert steep[-1] == pytest.approx(2 * scipy.stats.norm.sf(edge), abs=2e-3)
    assert steep[-1] == pytest.approx(0.94, abs=0.02)  # figure A.3
    for b in (-4.0, -1.0, 2.0):
        dead = scipy.stats.norm.cdf(-b)
        assert ranks.frozen_probability(RELU, shift=b) == pytest.approx(dead, abs=1e-9)
    assert ranks.frozen_probability(ACTIVATIONS["leaky_relu"], shift=-4.0) == 0


@pytest.mark.parametrize("eps", [0.003, 0.01, 0.03])
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
def test_effective_rank_as_the_formula_has_it(name, eps):
    """With the centred alpha to within 1 %; with the plain one ReLU would keep its rank."""
    function = ACTIVATIONS[name]
    alpha = ranks.alpha(function, centred=True)
    want = ranks.simulated_rank(function, 100, eps)
    gain = want - ranks.equicorrelated_rank(100, eps)
    assert ranks.effective_rank_after(100, eps, alpha) == pytest.approx(want, rel=0.02)
    predicted = ranks.effective_rank_after(100, eps, alpha) - ranks.equicorrelated_rank(100, eps)
    assert predicted == pytest.approx(gain, rel=0.25)


def test_equal_units_have_rank_1_and_independent_ones_full_rank():
    assert ranks.equicorrelated_rank(100, 1e-12) == pytest.approx(1, abs=1e-8)
    assert ranks.equicorrelated_rank(100, 1.0) == pytest.approx(100)
    assert ranks.equicorrelated_rank(100, 0.01) == pytest.approx(1.106, abs=6e-4)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "sigmoid", "elu"])
def test_a_function_that_is_no_polynomial_makes_the_rank_full(name):
    assert ranks.hard_ranks(ACTIVATIONS[name], 2000) == (10, 50)


def test_a_polynomial_does_not():
    before, after = ranks.hard_ranks(lambda x: x**2, 2000, units=80, rank=5)
    assert (before, after) == (5, 15)  # products of two of five numbers


def test_spectra_of_figure_3_1():
    """Effective ranks of tanh(ax): 4.25 for a small a to 9.65, as read off the figure."""
    found = {
        a: ranks.rank_of_eigenvalues(ranks.spectrum_after(lambda x, a=a: jnp.tanh(a * x)))
        for a in (0.01, 1.0, 20.0, 100.0)
    }
    assert list(found.values()) == sorted(found.values())
    plain = ranks.rank_of_eigenvalues(ranks.spectrum_after(ACTIVATIONS["identity"]))
    assert found[0.01] == pytest.approx(plain, rel=1e-3)
    assert plain <= 5
    assert found[100.0] > 1.5 * plain


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ranks.alpha(TANH, 0.0), "scale is 0.0 and shift 0.0: allowed are finite"),
        (lambda: ranks.moments(TANH, 1.0, np.inf), "shift inf: allowed are finite"),
        (lambda: ranks.equicorrelated_rank(1, 0.1), "units is 1 and eps 0.1: allowed are 2 units"),
        (lambda: ranks.simulated_rank(TANH, 9, 0.0), "eps 0.0: allowed are 2 units or more"),
    ],
)
def test_what_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
