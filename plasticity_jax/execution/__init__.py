"""Execution: programs of many lanes, where they are placed, and the sweep over their tasks."""
