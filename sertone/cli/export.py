"""`sertone export`: from a trained model to a bundle."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sertone.cli.common import SHARE, Flag, app
from sertone.cli.reader_options import NO_READER_OPTIONS, ReaderOptions
from sertone.errors import SertoneError
from sertone.utils.terminal import print_status, print_text


@app.command(group=SHARE)
def export(
    model: str,
    out: Path,
    /,
    *,
    int8: Flag = False,
    bf16: Flag = False,
    scores: Path | None = None,
    coverage: float | None = None,
    elsewhere: Annotated[list[Path] | None, Parameter(negative="")] = None,
    audit: Path | None = None,
    on: Annotated[tuple[str, Path] | None, Parameter(negative="")] = None,
    reader: ReaderOptions = NO_READER_OPTIONS,
    force: Annotated[Flag, Parameter(help="Write int8 although it loses more than 0.5 points.")] = False,
) -> int:
    """Export a model as a bundle, which runs without torch, and compare it with torch.

    Args:
        model: A checkpoint folder, a fold, a run (the mean of its folds' models), or OWNER/NAME on the
            Hugging Face hub. Or an audio-classification checkpoint of Hugging Face, as hf:FOLDER or
            hf:OWNER/NAME.
        out: Folder to write.
        int8: Compute matrix products in 8 bits: about a third of the size, and faster. Predictions differ
            a little.
        bf16: Store weights in 16 bits: half the size, at the speed of fp32.
        scores: A cross-validation of the same recipe, or a folder of `sertone choose`. The card states its
            scores, and its held-out predictions calibrate a model that was trained on all data. For an hf:
            model: a folder that `sertone evaluate` wrote.
        coverage: With `--scores`: share of recordings with a confident prediction, such as 0.8. Predictions
            for the others are marked unsure.
        elsewhere: A folder that `sertone evaluate` wrote. The card states its scores on that other corpus.
            May be repeated.
        audit: A folder that `sertone audit` wrote for this model. The card states the verdicts.
        on: Name and root of a corpus, as for `sertone corpora check`, on which int8 or bf16 is compared with
            fp32.
    """
    from sertone.export.bundles import export as export_bundle

    if int8 and bf16:
        raise SertoneError("two_precisions", "--int8 and --bf16", "one of them")
    if force and not int8:
        raise SertoneError("nothing_to_force", "--force without --int8", "both, or neither")
    if reader.to_keywords() and not on:
        raise SertoneError("no_table", "--columns or --speaker-pattern without --on", "the corpus to read")
    precision = "int8" if int8 else "bf16" if bf16 else "fp32"
    about = export_bundle(
        model,
        out,
        precision=precision,
        on=on,
        reader=reader.to_keywords(),
        force=force,
        scores=scores,
        coverage=coverage,
        elsewhere=elsewhere or (),
        audit=audit,
        say=print_status,
    )
    print_text(f"{out}  {_describe_differences(about)}")
    return 0


def _describe_differences(about: dict[str, Any]) -> str:
    """Return the differences of a bundle from torch and, if a corpus was given, from fp32."""
    largest = max(about["parity"]["largest_difference"].values())
    parts = [f"largest difference from torch: {largest:.1e}"]
    if about["precision"] == "fp32":
        return parts[0]
    comparison = about["measured"]
    if not comparison:
        return f"{parts[0]}; from fp32: not measured, see --on"
    if "equal_labels" in comparison:
        parts.append(f"{comparison['equal_labels']:.1%} of the labels are those of fp32")
    for name, score in comparison["scores"].items():
        parts.append(f"{name} {score['own']:.3f}, in fp32 {score['fp32']:.3f}")
    return "; ".join(parts)
