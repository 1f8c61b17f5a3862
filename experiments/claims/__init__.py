"""What Liu & Mou say, checked against the committed lane tables: `python -m experiments.claims` (make claims)."""
