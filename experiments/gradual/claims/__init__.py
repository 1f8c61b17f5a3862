"""What Liu & Mou say, checked against the committed lane tables: `python -m
experiments.gradual.claims` (make claims).
"""
