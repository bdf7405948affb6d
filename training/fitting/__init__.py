"""From a folder of good parts to a bundle."""
