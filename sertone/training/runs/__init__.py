"""Run folders: cross-validation, one model for use, and the results of all folds."""
