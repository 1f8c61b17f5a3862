"""Research on loss of plasticity in JAX."""
