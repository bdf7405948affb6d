"""Frozen feature extractors: where they come from, their graphs, and cached features."""
