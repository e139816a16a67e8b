"""`sertone audit`: does a model hold outside the recordings that it was trained on?"""

from pathlib import Path
from typing import Annotated

import yaml
from cyclopts import Parameter

from sertone.cli.common import STUDY, Flag, app
from sertone.cli.reader_options import NO_READER_OPTIONS, ReaderOptions
from sertone.errors import SertoneError
from sertone.utils.terminal import print_status, print_text


@app.command(group=STUDY)
def audit(
    *arguments: str,
    out: Path | None = None,
    utterances: int = 400,
    perturbations: Annotated[str | None, Parameter(show_default=False)] = None,
    noises: Path | None = None,
    rooms: Path | None = None,
    only: str | None = None,
    text: str = "corpus",
    reader: ReaderOptions = NO_READER_OPTIONS,
    jobs: int | None = None,
    fresh: Annotated[Flag, Parameter(help="Replace another audit that is in the folder.")] = False,
) -> int:
    """Test whether a model holds outside the studio: `sertone audit [MODEL] [CORPUS ROOT]`.

    Perturbed recordings (noise, rooms, microphones, codecs, time and pitch), groups of speakers, and sounds
    that are no speech, each with a verdict and its threshold. An audit that was stopped resumes.

    Args:
        arguments: First the model, as for `sertone evaluate`. A cross-validated run is tested fold by fold,
            each on its own test set. Default: the model that comes with Sertone. Then the name of the corpus
            (`sertone corpora list`), and its folder or table. Without them, only what needs no corpus is
            tested.
        out: Folder to write. Default: runs/audit-MODEL-on-CORPUS.
        utterances: Largest number of utterances; of a larger corpus, as many of each emotion as possible.
        perturbations: Some of the perturbations, as in `pink_noise,reverb`. Default: all.
        noises: Folder of noises of your own, which are added to the recordings.
        rooms: Folder of impulse responses of your own.
        only: Part of the corpus to use, as `data.only` of a recipe: `{partition: Test2}`.
        text: Source of the text for a model that uses text, as `data.text` of a recipe.
        jobs: Number of processes. Default: one per core.
    """
    from sertone.analysis.audit.audit import AuditSettings
    from sertone.analysis.audit.audit import audit as run
    from sertone.report.audit import summarise
    from sertone.utils.processes import count_cores

    if len(arguments) > 3:
        raise SertoneError("bad_command", f"{len(arguments)} arguments", "MODEL, CORPUS ROOT, or all three")
    model = next(iter(arguments), None) if len(arguments) in (1, 3) else None
    corpus, root = (arguments[-2], arguments[-1]) if len(arguments) > 1 else (None, None)
    part = yaml.safe_load(only) if only else None
    options = {"only": part, "text": yaml.safe_load(text), "reader": reader.to_keywords()} if corpus else {}
    out = out or Path("runs") / "-".join(["audit", _shorten(model), *(["on", corpus] if corpus else [])])
    settings = AuditSettings(
        utterances=utterances,
        perturbations=tuple(perturbations.split(",")) if perturbations else None,
        noises=noises,
        rooms=rooms,
        jobs=jobs or count_cores(),
    )
    result = run(model, corpus, root, out, settings, fresh=fresh, say=print_status, **options)
    print_text("\n".join(summarise(result.to_json())))
    print_text(f"report  {out / 'report.html'}")
    return 0


def _shorten(model: str | None) -> str:
    """Return the end of a model's path, for the name of a folder."""
    from sertone.runtime import shipped

    return Path((model or shipped.NAME).removeprefix("hf:")).name
