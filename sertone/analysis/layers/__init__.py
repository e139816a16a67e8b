"""Probe which layer of an encoder carries which information."""
