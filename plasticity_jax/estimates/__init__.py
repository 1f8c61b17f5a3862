"""Estimates: what a run will cost, and where its time goes."""
