"""Settings of JAX for every test; they must be made before any backend starts."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
