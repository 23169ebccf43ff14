"""Metrics, intervals, paired tests, and why a parameter was missed."""
