"""Self-contained HTML pages with one look: `run.write` for a run, more as they come; `plots` draws."""
