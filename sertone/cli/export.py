"""`sertone export`: from what was trained to a bundle."""

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
    on: Annotated[tuple[str, Path] | None, Parameter(negative="")] = None,
    reader: ReaderOptions = NO_READER_OPTIONS,
    force: Annotated[Flag, Parameter(help="write int8 although it loses more than 0.5 points.")] = False,
) -> int:
    """Write a model as a bundle, which needs no torch, and compare it with torch.

    Args:
        model: a checkpoint folder, a fold, a run (the mean of its folds' models), or OWNER/NAME on the
            Hugging Face hub; or an audio-classification checkpoint of Hugging Face, as hf:FOLDER or
            hf:OWNER/NAME.
        out: folder to write.
        int8: matrix products in 8 bits: about a third of the size and faster; its answers are not quite
            the same.
        bf16: weights stored in 16 bits: half the size, the speed of fp32.
        scores: run of a cross-validation of the same recipe, or folder of `sertone choose`, for the card to
            state its scores. Its held-out answers calibrate a model that was trained on all data. Of an hf:
            model a folder that `sertone evaluate` wrote.
        coverage: with `--scores`, share of recordings that shall get an answer, such as 0.8; the others are
            unsure.
        elsewhere: folder that `sertone evaluate` wrote, for the card to state scores on another corpus. May
            be repeated.
        on: a corpus, name and root as of `sertone corpora check`, on which int8 or bf16 is compared with
            fp32.
    """
    from sertone.export.bundles import export as write

    if int8 and bf16:
        raise SertoneError("two_precisions", "--int8 and --bf16", "one of them")
    if force and not int8:
        raise SertoneError("nothing_to_force", "--force without --int8", "both, or neither")
    if reader.to_keywords() and not on:
        raise SertoneError("no_table", "--columns or --speaker-pattern without --on", "the corpus to read")
    precision = "int8" if int8 else "bf16" if bf16 else "fp32"
    stated: dict[str, Any] = {"scores": scores, "coverage": coverage, "elsewhere": elsewhere or ()}
    stated |= {"on": on, "reader": reader.to_keywords()}
    about = write(model, out, precision=precision, force=force, say=print_status, **stated)
    print_text(f"{out}  {_differences(about)}")
    return 0


def _differences(about: dict[str, Any]) -> str:
    """From torch, and on a corpus from fp32."""
    said = f"largest difference from torch: {max(about['parity']['largest_difference'].values()):.1e}"
    if about["precision"] == "fp32":
        return said
    if not (found := about["measured"]):
        return f"{said}; from fp32: not measured, see --on"
    scores = [f"{n} {s['own']:.3f}, in fp32 {s['fp32']:.3f}" for n, s in found["scores"].items()]
    equal = f"{found['equal_labels']:.1%} of the labels are those of fp32" if "equal_labels" in found else ""
    return "; ".join(part for part in (said, equal, *scores) if part)
