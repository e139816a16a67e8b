"""Self-contained HTML pages with one look for runs (`run`), studies (`study`) and layers; `plots` draws."""
