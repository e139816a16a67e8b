"""Audit of a model: does it hold outside of the recordings that it was trained on?

    audit            the parts together
    audit_files      the files of an audit: JSON, CSV, page, answers
    subject          the audited model: one, or the models of a run's folds
    material         the recordings, as they are and perturbed, and the answers to them
    answers          what the model says about waveforms
    correctness      scores of the recordings as they are
    robustness       scores under perturbations, by their strength
    fairness         differences between groups of speakers, compared with those of chance
    groups, pitch    the groups: what the corpus says of speakers, and their pitch
    not_speech       labels of sounds that are no speech, which `sounds` makes
    verdicts         passed, failed or not testable, with the threshold
    compare_audits   paired differences between two audits

`sertone.audit` runs an audit.
"""
