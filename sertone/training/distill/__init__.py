"""Distil an encoder: a shallow student predicts layers of its teacher."""
