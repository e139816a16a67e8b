"""Training data: decoded recordings, batches, augmentation, and the cached output of frozen layers."""
