"""What the models of a study cost, measured one by one once all is trained, and kept."""

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sertone.analysis.cost import measure_cost
from sertone.analysis.study.study import TableCell
from sertone.files import write_json
from sertone.training.runs.scheduler import CrossValidationRun

StudyCosts = dict[tuple[str, str], dict[str, Any]]
"""Row and column -> what `cost.measure_cost` gives."""


def measure_costs(
    cells: Mapping[TableCell, CrossValidationRun], out: Path, say: Callable[[str], None]
) -> StudyCosts:
    """The cost of every row and column, which other seeds share.

    Args:
        cells: of the study.
        out: its folder; `costs.json` keeps what was measured while model, machine and torch are the same.
        say: told what is measured.

    Raises:
        SertoneError: as the building of the models.
    """
    path, found = out / "costs.json", []
    known = _measured(path)
    for (row, column), cell in {(p.row, p.column): cell for p, cell in cells.items()}.items():
        place = {"row": row, "column": column, "model": cell.experiment.recipe.model}
        place |= {"torch": torch.__version__, "machine": platform.node()}
        kept = next((each for each in known if place.items() <= each.items()), None)
        if kept is None:
            say(f"{row}, {column}: measuring speed and memory")
            kept = place | {"cost": measure_cost(place["model"], cell.experiment.build_vocabulary(0))}
        found.append(kept)
        write_json(path, found)
    return {(each["row"], each["column"]): each["cost"] for each in found}


def _measured(path: Path) -> list[dict[str, Any]]:
    """Return what was measured before; nothing where the file is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
