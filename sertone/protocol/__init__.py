"""Split corpora into folds that share no speaker, and look for what leaks between their sides."""
