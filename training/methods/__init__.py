"""Named methods and the branches that they are made of."""
