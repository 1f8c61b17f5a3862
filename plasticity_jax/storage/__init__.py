"""Storage: the folder of a run, its checkpoints, its table, and files that may be damaged."""
