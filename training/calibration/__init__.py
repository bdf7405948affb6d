"""Thresholds from the scores of good parts."""
