"""The task stream: which example of which task, in which mixture, when."""
