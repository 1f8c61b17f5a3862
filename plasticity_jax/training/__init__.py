"""Training: the network, one optimizer step, what is measured at the end of a task, and the loop
around them.
"""
