"""Prepare an experiment: recipe, corpus, split, teachers, and what the models have already seen."""
