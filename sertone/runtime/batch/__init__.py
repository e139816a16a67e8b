"""Predict many recordings into one resumable file."""
