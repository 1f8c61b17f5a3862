"""Speed, side by side: `python -m benchmarks [part ...]`. Not tests: times depend on the machine
and on what else it does.

Rivals run in processes of their own, warmed up, one at a time and in alternation; every figure is a
ratio formed within one round, and what is reported is the median over rounds with its range.
"""
