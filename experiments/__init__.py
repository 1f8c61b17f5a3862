"""One short file per experiment: its source, command, cost and what to expect; a Spec, a grid, a
figure.
"""
