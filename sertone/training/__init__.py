"""Training, cross-validation, checkpoints, and prediction straight from a checkpoint."""
