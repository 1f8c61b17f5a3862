"""The theory of gradual change, run: known landscapes, each statement as numbers, a plan from it,
and a real network.

`landscapes` are losses whose basin is known, `statements` what Liu & Mou's section 4 says of them
and gradient descent to compare, `plan` how many micro-tasks a change needs, `bridge` what of it can
be found in a network. `panels` and `picture` make the figure of `experiments/theory.py`.

What the theory does not model, plainly:

- Its change is linear, L'(θ) = L(A θ). Every task then has the same landscape, turned and stretched
  about the origin, with the same lowest loss. Interpolating labels mixes two losses instead, adds
  what neither had (the uniform target half way), and moves minima by no matrix common to all θ. The
  origin means nothing to a network, yet ‖θ*‖ enters every bound.
- It needs an isolated minimum with mu > 0. A softmax classifier has none: adding the same function
  to all logits changes nothing, so its Hessian has a null space, on top of what
  over-parametrization and normalization add; and with hard labels that can be fitted there is no
  minimum at all, only a descent to infinity.
- It is about full-batch gradient descent run to convergence in each micro-task, not Adam on
  minibatches with a budget.
- It says that the learner keeps to *its* minimum, not that this is a good one: whoever starts in
  the poor well of two is led faithfully to the poor well, while an abrupt change may throw it into
  the better one.
- It says nothing of what is called loss of plasticity: dormant units, rank, curvature that grows
  from task to task.
"""
