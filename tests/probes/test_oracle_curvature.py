"""hessian_top against matfree's Lanczos with full re-orthogonalisation, on an MLP of this
project.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import probes
from plasticity_jax.models import MLP


@pytest.mark.oracle
@pytest.mark.parametrize("sign", [1, -1])
def test_hessian_top_against_matfree(sign):
    pytest.importorskip("matfree")
    from matfree import decomp, eig

    net, random = MLP(3, width=8, depth=2, activation="tanh"), np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(32, 6)), jnp.float32)
    y = jax.nn.one_hot(random.integers(0, 3, 32), 3)
    params = net.init(jax.random.key(0), x)["params"]
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(p):
        return -sign * (y * jax.nn.log_softmax(net.apply({"params": p}, x))).sum(-1).mean()

    @jax.jit
    def oracle(start):
        gradient = jax.grad(lambda f: loss(unravel(f)))
        product = lambda v: jax.jvp(gradient, (flat,), (v,))[1]  # noqa: E731
        return eig.eigh_partial(decomp.tridiag_sym(60, reortho="full"))(product, start)[0]

    values = np.asarray(oracle(jax.random.normal(jax.random.key(1), flat.shape)))
    ritz = jax.jit(lambda k: probes.hessian_ritz(loss, params, k, 60, 1e-4))(jax.random.key(2))
    assert float(ritz.value) == pytest.approx(values.max(), rel=1e-4)
    assert float(ritz.residual) <= 1e-4 * float(ritz.value)
    if sign < 0:
        assert -values.min() > 1.5 * values.max(), (
            "the largest magnitude should be a negative eigenvalue here"
        )
    else:  # the defaults, which are what runs use
        assert float(probes.hessian_top(loss, params, jax.random.key(3))) == pytest.approx(
            values.max(), rel=1e-4
        )
