"""Audit of a model: does it hold outside of the recordings that it was trained on?

subject       the audited model: one for all utterances, or the one of the fold that has not seen them
answers       what the model says about waveforms, kept in files so that an audit resumes
robustness    scores under perturbations, by their strength
not_speech    sounds that are no speech: noises, tones, music, laughter, singing
fairness      differences between groups of speakers, compared with those of chance
verdicts      passed, failed or not testable, with the threshold
audit         the parts together, written as JSON, CSV and HTML
"""
