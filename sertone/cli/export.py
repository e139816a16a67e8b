"""`sertone export`: from what was trained to a bundle."""

import sys
from pathlib import Path

from sertone.cli.parts import app


@app.command
def export(model: Path, out: Path, /) -> int:
    """Write a model as a bundle, which needs no torch, and compare it with torch.

    Args:
        model: a checkpoint folder, a fold, a run (the mean of its folds' models), or OWNER/NAME on the
            Hugging Face hub.
        out: folder to write.
    """
    from sertone.export.bundles import export as write

    about = write(model, out, say=lambda what: print(what, file=sys.stderr))
    worst = about["parity"]["largest_difference"]
    print(f"{out}  largest difference from torch: {max(worst.values()):.1e}")
    return 0
