"""Encoder distillation: a shallow student learns to predict layers of its teacher."""
