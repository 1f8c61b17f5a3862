"""Reporting: statistics over seeds, what columns mean, curves and pictures, tables of several
runs.
"""
