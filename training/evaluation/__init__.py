"""Scores, metrics and comparisons."""
