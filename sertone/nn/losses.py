"""The concordance loss of ratings, over the whole batch, also where several ranks share it.

Axis letters: B batch.
"""

import torch
from torch import Tensor
from torch import distributed as dist


def concordance_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """One minus the concordance correlation coefficient (Lin 1989) of the rated utterances.

        CCC = 2 cov(p, y) / (var p + var y + (mean p - mean y)^2)

    A coefficient belongs to all utterances together, so several ranks take the sums of all of them. Where
    ratings do not vary, or there is one, the coefficient is 0 and so is the gradient.

    Args:
        predicted: (B,).
        target: (B,), NaN where there is no rating.

    Returns:
        a scalar, the same on all ranks; 0 where nothing is rated.
    """
    rated = target.isfinite()
    p, y = (torch.where(rated, values.float(), 0.0) for values in (predicted, target))
    count, sum_p, sum_y = total(torch.stack([rated.sum().float(), p.sum(), y.sum()])).unbind()
    some = count.clamp(min=1)
    mean_p, mean_y = sum_p / some, sum_y / some
    # the sums of squares about a mean do not change with it, to first order, so no gradient has to go there
    p, y = ((values - mean.detach()) * rated for values, mean in ((p, mean_p), (y, mean_y)))
    squares = total(torch.stack([(p * p).sum(), (y * y).sum(), (p * y).sum()])) / some
    variance_p, variance_y, covariance = squares.unbind()
    apart = variance_p + variance_y + (mean_p - mean_y) ** 2
    return (1 - 2 * covariance / apart.clamp(min=1e-8)) * (count > 0)


def total(sums: Tensor) -> Tensor:
    """Sum over the ranks, whose gradient is that of the whole once the ranks' gradients are averaged.

    Every rank's gradient flows through its own part alone; averaging divides it by the number of ranks,
    which is therefore multiplied in here.
    """
    if not dist.is_initialized():
        return sums
    everything = sums.detach().clone()
    dist.all_reduce(everything)
    return everything + dist.get_world_size() * (sums - sums.detach())
