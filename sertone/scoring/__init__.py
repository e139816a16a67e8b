"""Score models: metrics, intervals, calibration, and how scores are named and printed."""
