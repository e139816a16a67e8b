"""Commands that look into encoders: which layer tells what."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from sertone.cli.parts import Flag, Overrides, RecipePath, app
from sertone.terminal import say


@app.command
def layers(
    recipe: RecipePath,
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
    """Tell which layer of a recipe's encoder knows what: a linear probe per layer and target.

    Nothing of the recipe is trained. What was interrupted goes on where it stopped.

    Args:
        out: Folder to write; runs/layers-NAME of the recipe if not given, runs/layers-NAME-text with
            --encoder text.
        targets: Of arousal, valence, dominance, emotion, gender, speaker, style: --targets arousal valence.
            All that the corpus has labels for if not given.
        encoder: That of the audio, or that of the text.
        pooling: Of an utterance's frames: their mean, or mean and standard deviation.
        weights: Run whose models have learnt weights for their layers, shown beside the probes.
        jobs: Layers probed side by side; one per core if not given.
        json_: Print one JSON object instead of tables.
    """
    from sertone import recipe as recipes
    from sertone.analysis import layers as analysis

    out = out or Path("runs") / f"layers-{recipe.stem}{'-text' * (encoder == 'text')}"
    found = analysis.layers(
        recipes.load(recipe, overrides or ()),
        out,
        names=targets,
        modality=encoder,
        pooling=pooling,
        weights=weights,
        jobs=jobs,
    )
    say(json.dumps(found, ensure_ascii=False) if json_ else analysis.to_text(found))
    if not json_:
        say(f"report  {out / 'report.html'}")
    return 0
