"""The experiments of Joudaki et al. 2025, "Barriers for Learning in an Evolving World"."""
