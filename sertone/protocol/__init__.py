"""Split corpora into folds that share no speaker, and find what leaks between their sets."""
