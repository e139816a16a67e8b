"""Perturbations of recordings: waveform in, waveform out, from a seed, without torch.

Training uses them to make models robust, `sertone audit` to measure whether they are.

    perturbations  the table of perturbations, with their units and strengths
    material       recordings to draw from: other utterances, noises, impulse responses
    speech_level   active speech level, and mixing at a signal-to-noise ratio over it
    noise          coloured noise, hum, babble, music, street
    room           reverberation
    codec          telephone, AMR-NB, Opus, MP3
    microphone     colour, tilt, band limits, clipping, level
    timing         cuts, lost packets, speed, pitch
"""

from sertone.perturb.material import Material
from sertone.perturb.perturbations import PERTURBATIONS, Perturbation, perturb

__all__ = ["PERTURBATIONS", "Material", "Perturbation", "perturb"]
