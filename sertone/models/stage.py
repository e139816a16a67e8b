"""One stage of a training plan: which losses count, and what stays as it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: for progress lines and reports.
        weights: task -> weight of its loss; the loss is the weighted sum.
        cut: where the encoder's frozen prefix ends (see `nn.encoder`).
        needs: the encoder's hidden states that the model reads; a cache keeps no others.
        frozen: names of further modules that are not trained.
    """

    name: str
    weights: dict[str, float]
    cut: int
    needs: tuple[int, ...]
    frozen: tuple[str, ...] = ()
