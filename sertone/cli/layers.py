"""Commands that look into encoders: which layer carries which information."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from sertone.cli.common import STUDY, FileOrName, Flag, Overrides, app
from sertone.utils.terminal import print_text


@app.command(group=STUDY)
def layers(
    recipe: FileOrName,
    /,
    *,
    out: Path | None = None,
    overrides: Overrides = None,
    targets: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    encoder: Literal["audio", "text"] = "audio",
    pooling: Literal["mean", "statistics"] = "mean",
    weights: str | None = None,
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    json_: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Probe which layer of a recipe's encoder carries which information, with a linear probe for each.

    The encoder is not trained. The same command resumes a run that was interrupted.

    Args:
        out: Folder to write. Default: runs/layers-NAME, or runs/layers-NAME-text with --encoder text.
        targets: Some of arousal, valence, dominance, emotion, gender, speaker, style, as in --targets arousal
            valence. Default: all that the corpus has labels for.
        encoder: The encoder to probe: of the audio or of the text.
        pooling: The frames of an utterance become their mean, or mean and standard deviation (`statistics`).
        weights: A run whose models learnt weights for their layers, to show beside the probes.
        jobs: Number of layers probed side by side. Default: one per core.
        json_: Print one JSON object instead of tables.
    """
    from sertone import recipe as recipes
    from sertone.analysis.layers import probe_layers as analysis

    out = out or Path("runs") / f"layers-{recipe.stem}{'-text' * (encoder == 'text')}"
    found = analysis.probe_layers(
        recipes.load(recipe, overrides or ()),
        out,
        target_names=targets,
        modality=encoder,
        pooling=pooling,
        weights=weights,
        jobs=jobs,
    )
    print_text(json.dumps(found, ensure_ascii=False) if json_ else analysis.to_text(found))
    if not json_:
        print_text(f"report  {out / 'report.html'}")
    return 0
