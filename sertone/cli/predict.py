"""`sertone predict`: emotions of recordings."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from sertone.cli.parts import Flag, app
from sertone.errors import SertoneError


@app.command
def predict(
    model: Path,
    /,
    *files: Path,
    text: str | None = None,
    manifest: Path | None = None,
    asr: str | None = None,
    language: str = "",
    classes: str | None = None,
    min_confidence: float | None = None,
    dimensions: Literal["corpus", "unit"] = "corpus",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    strict: Flag = False,
) -> int:
    """Predict recordings: one JSON object per line and file, in the order given.

    A model of audio and text answers from the audio alone where there is no text, and says so.

    Args:
        model: a bundle, a checkpoint folder, a run, or OWNER/NAME on the Hugging Face hub. A run answers with
            the mean of its folds' models, most of which were trained on a recording that belongs to the
            corpus.
        files: recordings of any rate and number of channels.
        text: what is said in the one recording given.
        manifest: instead of files, a table with the columns `path` and, where it is known, `text`.
        asr: name or folder of a faster-whisper model, such as `small`, that writes down what is said where no
            text is given.
        language: of the speech, for the ASR, such as `en`; detected if not given.
        classes: classes to tell, of those of the model: `angry,sad` leaves the others out and shares their
            probability among the rest, `happy=positive,sad=negative` renames and merges. Or a YAML file with
            a mapping.
        min_confidence: below it an answer is unsure; as the model was calibrated if not given.
        dimensions: arousal, valence, dominance on the scale of the `corpus`, or from 0 to 1 (`unit`).
        device: `cuda` needs a card, and onnxruntime-gpu for a bundle.
        threads: for one recording; one per core if not given.
        strict: refuse what would be answered with a warning, such as a truncated file, or one without text of
            a model that reads.
    """
    from sertone import load
    from sertone.labels import parse_map

    chosen, texts = _inputs(files, text, manifest)
    mapping = parse_map(classes, "--classes") if classes else None
    told: dict[str, Any] = {"classes": mapping, "min_confidence": min_confidence, "dimensions": dimensions}
    predictor, failed = load(model, device=device, threads=threads, **told), False
    recogniser = _recogniser(asr, language) if asr and predictor.model.reads else None
    made = predictor.predict_files(chosen, strict=strict, texts=texts, recogniser=recogniser)
    for prediction in made:
        print(json.dumps(prediction.to_json(), ensure_ascii=False), flush=True)
        failed |= prediction.status == "error"
    return int(failed)


def _inputs(
    files: Sequence[Path], text: str | None, manifest: Path | None
) -> tuple[Sequence[Path], Sequence[str | None]]:
    """Recordings and what is said in them."""
    if bool(files) == bool(manifest):
        found = "both recordings and a manifest" if files else "no recordings given"
        raise SertoneError("no_files", found, "sertone predict MODEL FILE..., or --manifest TABLE")
    if text is not None and len(files) != 1:
        found = f"--text and {'a manifest' if manifest else f'{len(files)} recordings'}"
        raise SertoneError(
            "many_files", found, "one recording", "--manifest takes a table with a column of texts"
        )
    if manifest:
        from sertone.corpora.manifest import recordings

        rows = recordings(manifest)
        return [path for path, _ in rows], [said for _, said in rows]
    return files, [text] * len(files)


def _recogniser(model: str, language: str) -> Callable:
    from sertone.recipe import AsrConfig
    from sertone.transcripts.recogniser import Recogniser

    return Recogniser(AsrConfig(model=model), language)
