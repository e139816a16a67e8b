"""Perturbations against independent measurements: ratios, spectra, reverberation times and delays read back."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate, lfilter, welch
from synthetic import RATE, SEED, decibels, draw, talk, tone

from sertone import audio
from sertone.errors import SertoneError
from sertone.perturb import PERTURBATIONS, Material, codec, microphone, noise, perturb, room, timing

PERTURBATIONS_OF = {kind.apply: kind for kind in PERTURBATIONS.values()}
EMPTY = Material()


@pytest.fixture(scope="module")
def material():
    return Material([talk(2.0, seed) for seed in range(4)], [tone(500)], [np.eye(1, 2000, 40)[0]])


@pytest.fixture(scope="module")
def sentences(voices):
    return [audio.read(path).samples for path in voices[:4]]


def gain_db(change, hertz):
    """Gain at one frequency, by a sine away from the ends of a recording."""
    sine = tone(hertz)
    middle = slice(RATE // 2, -RATE // 2)
    return decibels(change(sine)[middle]) - decibels(sine[middle])


# Noises


@pytest.mark.parametrize(("make", "slope"), [(noise.white, 0), (noise.pink, -3.01), (noise.brown, -6.02)])
def test_coloured_noise_falls_by_its_decibels_per_octave(make, slope):
    frequencies, power = welch(make(60 * RATE, draw(), EMPTY), RATE, nperseg=8192)
    band = (frequencies > 50) & (frequencies < 7000)
    fitted, _ = np.polyfit(np.log2(frequencies[band]), 10 * np.log10(power[band]), 1)
    assert fitted == pytest.approx(slope, abs=0.1)


def test_brown_noise_has_no_energy_below_hearing():
    power = np.abs(np.fft.rfft(noise.brown(10 * RATE, draw(), EMPTY))) ** 2
    assert power[: 20 * 10].sum() < 1e-12 * power.sum()


def test_hum_has_lines_at_the_multiples_of_the_mains():
    for seed in range(4):
        power = np.abs(np.fft.rfft(noise.hum(RATE, draw(seed), EMPTY))) ** 2  # 1 Hz per line
        lines = np.flatnonzero(power > 1e-4 * power.max())
        assert lines[0] in (50, 60) and np.array_equal(lines, lines[0] * np.arange(1, 11))
        assert 10 * np.log10(power[lines[0]] / power[lines[3]]) == pytest.approx(20 * np.log10(4), abs=0.01)


def test_babble_is_made_of_the_other_utterances_only(material):
    only = Material([tone(440, 1.0), tone(660, 1.0)])
    power = np.abs(np.fft.rfft(noise.babble(RATE, draw(), only))) ** 2
    assert set(np.flatnonzero(power > 0.001 * power.max())) == {440, 660}


@pytest.mark.parametrize(
    "make", [noise.music, noise.environment, noise.babble, noise.voice, noise.user_noise]
)
def test_noises_have_unit_power_and_another_seed_is_another_noise(make, material):
    first, again, other = (make(3 * RATE, draw(seed), material) for seed in (1, 1, 2))
    assert np.sqrt(np.mean(first**2)) == pytest.approx(1)
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_music_has_the_notes_of_chords():
    _, power = welch(noise.music(20 * RATE, draw(), EMPTY), RATE, nperseg=RATE)
    flatness = np.exp(np.mean(np.log(power[100:2000]))) / np.mean(power[100:2000])
    _, flat = welch(noise.white(20 * RATE, draw(), EMPTY), RATE, nperseg=RATE)
    assert flatness < 0.2 < np.exp(np.mean(np.log(flat[100:2000]))) / np.mean(flat[100:2000])


# Rooms


@given(rt60=st.floats(0.15, 2.0), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_the_reverberation_time_is_measured_back(rt60, seed):
    """Schroeder's backward integration: the slope between -5 and -35 dB of the tail (ISO 3382, T30)."""
    response = room.room_response(rt60, draw(seed))[1:]
    decay = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1] / (response**2).sum())
    part = np.flatnonzero((decay < -5) & (decay > -35))
    slope, _ = np.polyfit(part / RATE, decay[part], 1)
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


def test_a_longer_reverberation_has_more_energy_behind_the_direct_sound():
    """For 60 cubic metres at one metre the critical distance is 0.57 m at 0.6 s: the ratio is -4.9 dB."""
    response = room.room_response(0.6, draw())
    assert 10 * np.log10(response[0] ** 2 / (response[1:] ** 2).sum()) == pytest.approx(-4.9, abs=0.05)


def test_a_recorded_room_that_is_a_delay_changes_nothing(material):
    assert np.allclose(perturb(talk(), "recorded_room", 1.0, SEED, material), talk(), atol=1e-6)


# Microphones


@pytest.mark.parametrize("edge", [1500, 4000])
def test_band_edges_lie_at_minus_three_decibels(edge):
    def low(samples):
        return microphone.low_pass(samples, edge, draw(), EMPTY)

    def high(samples):
        return microphone.high_pass(samples, edge, draw(), EMPTY)

    assert gain_db(low, edge) == pytest.approx(-3.01, abs=0.02)
    assert gain_db(high, edge) == pytest.approx(-3.01, abs=0.02)
    assert gain_db(low, edge / 2) == pytest.approx(0, abs=0.02)
    assert gain_db(high, edge / 2) == pytest.approx(-48.2, abs=0.2)


@pytest.mark.parametrize("slope", [-6.0, -1.0, 3.0])
def test_tilt_is_so_many_decibels_in_an_octave(slope):
    gains = [
        gain_db(lambda x: microphone.tilt(x, slope, draw(), EMPTY), hertz) for hertz in (500, 1000, 4000)
    ]
    assert gains == pytest.approx([-slope, 0, 2 * slope], abs=0.05)


def test_microphones_differ_by_the_spread():
    gains = [
        gain_db(lambda x, seed=seed: microphone.colour(x, 6.0, draw(seed), EMPTY), 1000) for seed in range(80)
    ]
    assert 3.0 < np.std(gains) < 7.0  # between two points of the response the spread is smaller


@given(percent=st.floats(0.5, 50))
@settings(max_examples=20, deadline=None)
def test_the_share_of_clipped_samples_is_counted_back(percent):
    noisy = draw().standard_normal(RATE).astype(np.float32) / 10
    clipped = microphone.clip(noisy, percent, draw(), EMPTY)
    at_limit = np.isclose(np.abs(clipped), np.abs(clipped).max())
    assert at_limit.mean() == pytest.approx(percent / 100, abs=2e-3)


@pytest.mark.parametrize("level", [-60, -30, -20])
def test_levels_are_measured_back_and_rounded_to_16_bits(level):
    changed = microphone.set_level(tone(300), level, draw(), EMPTY)
    assert decibels(changed) == pytest.approx(level, abs=0.3)
    assert np.array_equal(changed * 2**15, np.round(changed * 2**15))


def test_a_level_of_full_scale_clips():
    assert np.mean(np.abs(microphone.set_level(tone(300), 0, draw(), EMPTY)) > 0.999) > 0.4


# Codecs


def test_mu_law_is_that_of_g711(tmp_path):
    """Against libsndfile's coder, whose segments are straight lines: both errors have the same size."""
    speech = talk()
    soundfile.write(tmp_path / "a.wav", speech, RATE, subtype="ULAW")
    reference, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    ours = codec.mu_law(speech, 8, draw(), EMPTY)
    assert decibels(ours - speech) == pytest.approx(decibels(reference - speech), abs=1.0)


def test_a_telephone_line_has_the_band_of_speech():
    gains = [
        gain_db(lambda x: codec.telephone(x, 8, draw(), EMPTY), hertz) for hertz in (100, 300, 1000, 3400)
    ]
    assert gains[0] < -35 and gains[2] == pytest.approx(0, abs=0.1)
    assert [gains[1], gains[3]] == pytest.approx([-3, -3], abs=0.5)
    high = codec.telephone(tone(5000), 8, draw(), EMPTY)
    assert decibels(high) < decibels(tone(5000)) - 40


@pytest.mark.parametrize("coder", [codec.AMR_NB, codec.OPUS, codec.MP3])
def test_codecs_keep_length_and_time_and_lose_more_at_low_rates(coder, sentences):
    rates = {codec.AMR_NB: (12.2, 4.75), codec.OPUS: (24, 6), codec.MP3: (64, 8)}[coder]
    original = sentences[0]
    errors = []
    for rate in rates:
        coded = coder(original, rate, draw(), EMPTY)
        assert len(coded) == len(original)
        errors.append(decibels(coded - original) - decibels(original))
    assert errors[0] < errors[1] < 0


@pytest.mark.parametrize("coder", [codec.AMR_NB, codec.OPUS, codec.MP3])
def test_the_delay_of_a_codec_is_undone_also_for_tonal_sounds(coder):
    """A burst of noise within a vowel stays where it was: to a millisecond."""
    vowel = sum(tone(120 * k, 1.5, 0.1 / k) for k in range(1, 12))
    vowel[12000:12400] += 0.5 * draw().standard_normal(400).astype(np.float32)
    coded = coder(vowel, PERTURBATIONS_OF[coder].strengths[0], draw(), EMPTY)
    power = [np.convolve(np.abs(x - x.mean()), np.ones(400), "same") for x in (vowel, coded)]
    assert power[1].argmax() == pytest.approx(power[0].argmax(), abs=RATE // 400)


# Time


def test_a_cut_keeps_a_part_of_the_recording_as_it_is():
    cut = timing.cut_ends(talk(), 30, draw(), EMPTY)
    assert len(cut) == pytest.approx(0.7 * len(talk()), abs=1)
    start = correlate(talk(), cut, "valid").argmax()
    assert np.array_equal(talk()[start : start + len(cut)], cut)


@pytest.mark.parametrize("percent", [5, 20])
def test_lost_packets_are_whole_and_come_in_bursts(percent):
    flat = np.ones(RATE * 600, np.float32)
    packets = timing.lose_packets(flat, percent, draw(), EMPTY).reshape(-1, RATE // 50)
    assert np.array_equal(packets.min(1), packets.max(1))
    lost = packets[:, 0] == 0
    assert lost.mean() == pytest.approx(percent / 100, rel=0.15)
    bursts = np.sum(lost[1:] & ~lost[:-1]) + lost[0]
    assert lost.sum() / bursts == pytest.approx(3.0, rel=0.15)


def loudest_hertz(samples):
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * RATE))
    return spectrum.argmax() / 8


@pytest.mark.parametrize("percent", [-10, 5, 20])
def test_speed_changes_pitch_and_duration(percent):
    changed = timing.change_speed(tone(400), percent, draw(), EMPTY)
    assert loudest_hertz(changed) == pytest.approx(400 * (1 + percent / 100), abs=0.5)
    assert len(changed) == pytest.approx(2 * RATE / (1 + percent / 100), abs=2)


def test_a_whisper_has_no_pitch_and_the_resonances_of_the_voice():
    """Harmonics of 130 Hz through one resonance at 900 Hz."""
    pulses = (np.arange(48000) % 123 == 0).astype(float)
    radius = np.exp(-np.pi * 150 / 16000)
    spoken = lfilter([1.0], [1.0, -2 * radius * np.cos(2 * np.pi * 900 / 16000), radius**2], pulses)
    spoken = (0.1 * spoken / spoken.std()).astype(np.float32)
    whispered = perturb(spoken, "whisper", 100.0, seed=0)
    periodicity = [(x[:-123] @ x[123:]) / (x @ x) for x in (spoken, whispered)]
    assert periodicity[0] > 0.99 and abs(periodicity[1]) < 0.1
    assert whispered.std() == pytest.approx(spoken.std(), rel=0.2)
    frequencies, powers = welch(whispered, 16000, nperseg=256)
    assert frequencies[powers.argmax()] == pytest.approx(900, abs=100)
    np.testing.assert_allclose(perturb(spoken, "whisper", 0.0, seed=0)[600:-600], spoken[600:-600], atol=1e-3)


@pytest.mark.parametrize("semitones", [-4, 1, 2])
def test_pitch_changes_and_the_duration_stays(semitones):
    changed = timing.shift_pitch(tone(400), semitones, draw(), EMPTY)
    assert loudest_hertz(changed) == pytest.approx(400 * 2 ** (semitones / 12), rel=0.01)
    assert len(changed) == 2 * RATE


# The table


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_repeats_itself_and_keeps_its_input(name, material):
    recording, original = talk(), talk()
    kind = PERTURBATIONS[name]
    for strength in (kind.strengths[0], kind.strengths[-1]):
        changed = perturb(recording, name, strength, SEED, material)
        assert changed.dtype == np.float32 and changed.ndim == 1 and np.isfinite(changed).all()
        assert np.array_equal(changed, perturb(recording, name, strength, SEED, material))
    assert np.array_equal(recording, original)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_takes_silence_and_very_short_recordings(name, material):
    strength = PERTURBATIONS[name].strengths[-1]
    for recording in (np.zeros(RATE, np.float32), talk()[:400], np.zeros(400, np.float32)):
        assert np.isfinite(perturb(recording, name, strength, SEED, material)).all()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_strengths_go_one_way(name):
    steps = np.diff(PERTURBATIONS[name].strengths)
    assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize(
    ("name", "field"),
    [("babble", "speech"), ("recorded_noise", "noises"), ("recorded_room", "impulse responses")],
)
def test_missing_recordings_are_an_error(name, field):
    with pytest.raises(SertoneError, match=field) as caught:
        perturb(talk(), name, 1.0, SEED)
    assert caught.value.code == "no_material"


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(SertoneError, match="reverb") as caught:
        perturb(talk(), "reverbe", 0.5, SEED)
    assert caught.value.code == "unknown_perturbation"


def test_folders_of_noises_are_read(tmp_path, tone):
    tone("a.wav", 1.0, 8000, 2)
    loaded = Material.load(noise_folder=tmp_path)
    assert len(loaded.noises) == 1 and len(loaded.noises[0]) == RATE
    with pytest.raises(SertoneError, match="is not a folder") as caught:
        Material.load(impulse_folder=tmp_path / "missing")
    assert caught.value.code == "no_audio_files"
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(SertoneError, match=r"silent\.wav in .* is silent"):
        Material.load(impulse_folder=tmp_path)


def test_recipes_name_perturbations_where_scipy_is_not_installed():
    """As with the extra `asr`, which recipes belong to."""
    script = """
import sys
sys.modules.update(dict.fromkeys(["scipy", "python_stretch", "av"]))
import sertone.recipe, sertone.transcripts.asr
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_perturbations_need_no_torch():
    script = "import sys; from sertone.perturb import perturb; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "False"
