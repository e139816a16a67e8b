"""Ablation studies, and choosing settings inside the training speakers."""
