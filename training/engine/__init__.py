"""The training loop, losses, checkpoints and export."""
