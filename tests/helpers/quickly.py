"""How programs are compiled whose bits do not matter."""

# each operation a kernel of its own: two thirds of the time that JAX_DISABLE_MOST_OPTIMIZATIONS
# alone leaves
QUICKLY = {"xla_cpu_use_fusion_emitters": False}
