"""Fast convolutions on a CPU."""
