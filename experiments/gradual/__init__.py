"""Liu & Mou, "Do Neural Networks Lose Plasticity in a Gradually Changing World?", and what follows
from it.
"""
