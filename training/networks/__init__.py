"""One method per file: pure tensors in, tensors out."""
