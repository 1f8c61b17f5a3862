"""The command line: flags, and how a run is launched."""
