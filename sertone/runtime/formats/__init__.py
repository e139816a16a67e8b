"""Timelines as files: ELAN, Praat, captions, RTTM, CSV, HTML and PNG."""
