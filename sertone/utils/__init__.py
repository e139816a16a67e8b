"""Small helpers for all parts: child processes, the terminal, optional packages, suggestions, the hub."""
