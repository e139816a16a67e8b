"""Losses of classes, transcripts and ratings. A missing label adds nothing to a loss or its gradient.

Axis letters: B batch, T frames, K outputs, S target length.
"""

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F


def class_loss(
    logits: Tensor, target: Tensor, class_weights: Tensor, smoothing: float, focal_gamma: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy, or focal loss (Lin et al. 2017), over the labelled utterances.

    With target p, prediction q, class weights w, smoothing e and exponent g, over utterances b and classes k:

        sum_bk w_k ((1 - e) p_bk + e / K) (1 - q_bk)^g (- log q_bk)  /  sum_bk w_k p_bk

    Args:
        logits: (B, K).
        target: probabilities of the classes, (B, K): a one for a class, a distribution for annotators'
            votes, zeros without a label.
        class_weights: (K,).
        smoothing: label smoothing.
        focal_gamma: g; 0 for the cross-entropy.
    """
    log_probabilities = logits.float().log_softmax(-1)  # (B, K)
    surprise = -log_probabilities * class_weights
    if focal_gamma:
        # 1 - q without a difference of nearly equal numbers; above 0, so that its power has a gradient.
        surprise = surprise * (-log_probabilities.expm1()).clamp(min=1e-6) ** focal_gamma
    smoothed = surprise.sum(-1) * (smoothing / logits.shape[-1])
    losses = (1 - smoothing) * (surprise * target).sum(-1) + smoothed
    total_weight = (class_weights * target).sum()
    # Smoothing alone would also charge utterances without a label; a batch may have no label at all.
    return (losses * target.any(-1)).sum() / total_weight.clamp(min=1e-6)


def transcript_loss(logits: Tensor, frames: Tensor, target: Tensor) -> Tensor:
    """Return the mean CTC loss per character (Graves et al. 2006) over the usable transcripts.

    A transcript that is missing, or that needs more frames than there are (`exceeds_frames`), is left out:
    its loss would be infinite and its gradient not a number.

    Args:
        logits: (B, T, K), the blank first.
        frames: real frames, (B,).
        target: characters counted from 1, and 0 after the end, (B, S).
    """
    sizes = (target > 0).sum(1)
    usable = (sizes > 0) & ~exceeds_frames(frames, target)
    losses = F.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),  # (T, B, K)
        torch.where(usable[:, None], target, 0),
        frames,
        torch.where(usable, sizes, 0),
        reduction="none",
    )
    losses = torch.where(usable, losses / sizes.clamp(min=1), 0.0)
    return losses.sum() / usable.sum().clamp(min=1)


def exceeds_frames(frames: Tensor, target: Tensor) -> Tensor:
    """Return where a transcript needs more frames than there are, (B,).

    CTC needs one frame for each character, and one more for the blank between two equal characters.

    Args:
        frames: real frames, (B,).
        target: characters counted from 1, and 0 after the end, (B, S).
    """
    repeats = ((target[:, 1:] == target[:, :-1]) & (target[:, 1:] > 0)).sum(1)
    return (target > 0).sum(1) + repeats > frames


def consistency_loss(logits: Tensor, reference: Tensor) -> Tensor:
    """Return the mean distance of the predictions for perturbed recordings from those for clean ones.

    Classes: the Kullback-Leibler divergence of the perturbed from the clean distribution (as in virtual
    adversarial training, arXiv 1704.03976). Ratings: the squared difference on the scale from 0 to 1.

    Args:
        logits: of the perturbed recordings, (B, K); a rating has one logit.
        reference: of the clean recordings, (B, K). It gets no gradient.
    """
    if logits.shape[-1] == 1:
        return (torch.sigmoid(logits.float()) - torch.sigmoid(reference.detach().float())).square().mean()
    perturbed, clean = (values.float().log_softmax(-1) for values in (logits, reference.detach()))
    return F.kl_div(perturbed, clean, reduction="batchmean", log_target=True)


def concordance_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return one minus the concordance correlation coefficient (Lin 1989) of the rated utterances.

        CCC = 2 cov(p, y) / (var p + var y + (mean p - mean y)^2)

    The coefficient belongs to all utterances together, so several processes add up their sums. Where ratings
    do not vary, or there is only one, the coefficient is 0 and so is the gradient.

    Args:
        predicted: (B,).
        target: (B,), NaN where there is no rating.

    Returns:
        a scalar, the same in all processes; 0 where nothing is rated.
    """
    is_rated = target.isfinite()
    p, y = (torch.where(is_rated, values.float(), 0.0) for values in (predicted, target))
    sums = sum_over_processes(torch.stack([is_rated.sum().float(), p.sum(), y.sum()]))
    count, sum_p, sum_y = sums.unbind()
    divisor = count.clamp(min=1)
    mean_p = sum_p / divisor
    mean_y = sum_y / divisor
    # The sums of squares about a mean do not change with it, to first order: no gradient has to go there.
    p, y = ((values - mean.detach()) * is_rated for values, mean in ((p, mean_p), (y, mean_y)))
    squares = sum_over_processes(torch.stack([(p * p).sum(), (y * y).sum(), (p * y).sum()])) / divisor
    variance_p, variance_y, covariance = squares.unbind()
    denominator = variance_p + variance_y + (mean_p - mean_y) ** 2
    # Without any variance the denominator may be 0, and the coefficient has to be 0 then.
    return (1 - 2 * covariance / denominator.clamp(min=1e-8)) * (count > 0)


def sum_over_processes(sums: Tensor) -> Tensor:
    """Sum over the processes, with the gradient of the whole batch once their gradients are averaged.

    The gradient of every process flows through its own part alone. Averaging divides it by the number of
    processes, so this function multiplies by that number.
    """
    if not dist.is_initialized():
        return sums
    total = sums.detach().clone()
    dist.all_reduce(total)
    # The value is `total`; the second term is zero and only carries the gradient.
    return total + dist.get_world_size() * (sums - sums.detach())
