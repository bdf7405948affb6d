"""The offline training package: images of good parts in, a verified bundle out."""
