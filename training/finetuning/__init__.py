"""Learning from labels: retraining and the candidate."""
