"""A timeline as a model would predict it: three minutes of an agent and a customer who gets angry, then content."""

import numpy as np

from sertone.schema import Prediction, Segment, Speaker

CLASSES = ["neutral", "happy", "angry", "sad"]
SECONDS = 183.4


def conversation():
    """Return a prediction for two speakers who take turns and sometimes interrupt each other."""
    draw, segments, start = np.random.default_rng(3), [], 1.2
    while start < SECONDS - 5:
        speaker = ("Agent", "Customer")[len(segments) % 2]
        end = min(start + draw.uniform(1.5, 7.5), SECONDS - 1)
        segments.append(segment(speaker, start, end, mood(speaker, start) + draw.normal(0, 0.75, 4)))
        start = end + draw.choice([-0.6, 0.3, 0.8, 1.5])
    mean_scores = mean(segments)
    speakers = [
        summarise_speaker(name, [s for s in segments if s.speaker == name]) for name in ("Agent", "Customer")
    ]
    return Prediction(
        file="call_0417.wav",
        status="ok",
        duration_s=SECONDS,
        segments=segments,
        speakers=speakers,
        **mean_scores,
    )


def mood(speaker, at):
    if speaker == "Agent":
        return np.array([1.6, 0.6, -1.5, -0.4])
    return np.array(
        [0.6, 1.6 if at > 130 else -0.2, 1.8 * (40 < at < 105), 0.8 * (at < 40) + 1.1 * (105 < at < 130)]
    )


def segment(speaker, start, end, scores):
    shares = np.exp(1.5 * scores) / np.exp(1.5 * scores).sum()
    _, happy, angry, sad = shares
    rated = {"arousal": 3 + 0.9 * (happy + angry - sad), "valence": 3 + 1.2 * (happy - angry) - 0.8 * sad}
    return Segment(start_s=round(start, 2), end_s=round(end, 2), speaker=speaker, **answer(shares, rated))


def answer(shares, rated):
    return {
        "label": CLASSES[int(np.argmax(shares))],
        "probabilities": dict(zip(CLASSES, map(float, shares), strict=True)),
        "confidence": float(max(shares)),
        "unsure": bool(max(shares) < 0.5),
        "dimensions": {name: float(value) for name, value in rated.items()},
    }


def mean(segments):
    weights = [s.end_s - s.start_s for s in segments]
    shares = np.average([list(s.probabilities.values()) for s in segments], axis=0, weights=weights)
    rated = np.average([list(s.dimensions.values()) for s in segments], axis=0, weights=weights)
    return answer(shares, dict(zip(("arousal", "valence"), rated, strict=True)))


def summarise_speaker(name, segments):
    lengths = [s.end_s - s.start_s for s in segments]
    seconds = {
        label: sum(n for n, s in zip(lengths, segments, strict=True) if s.label == label and not s.unsure)
        for label in CLASSES
    }
    scores = {key: value for key, value in mean(segments).items() if key != "unsure"}
    return Speaker(
        name=name,
        segments=len(segments),
        speech_s=sum(lengths),
        seconds_by_label={label: value for label, value in seconds.items() if value},
        unsure_s=sum(n for n, s in zip(lengths, segments, strict=True) if s.unsure),
        **scores,
    )
