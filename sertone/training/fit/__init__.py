"""Fit one model: the training loop, its steps, checkpoints, and several processes that share the work."""
