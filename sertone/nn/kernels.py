"""Dropout, attention and memory: the same mathematics as torch's, in the form that a device runs fastest.

On a GPU and in evaluation these are torch's own kernels. On a CPU torch draws dropout masks one number at a
time, and does without its fast attention as soon as there is dropout. Beside the matrix products of the
layers both take too long (docs/performance.md has the numbers).

Axis letters: B batch, H attention heads, T frames.
"""

import ctypes
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M_TRIM_THRESHOLD = -1  # of malloc.h
M_MMAP_MAX = -4  # of malloc.h
STEPS = 1 << 16
"""A random number of 16 bits decides about one element: probabilities are multiples of 1 / STEPS."""
_use_own = False  # for the whole process, set by `choose`


class Dropout(nn.Dropout):
    """`nn.Dropout` with the chosen kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input


def choose(kind: str) -> None:
    """Choose the kernels of this process: `own` where they are faster, or always those of `torch`.

    Own dropout masks are other draws of the same distribution. Both kinds keep freed memory on a machine
    without a GPU; the process cannot undo that.
    """
    global _use_own
    _use_own = kind == "own"
    if not torch.cuda.is_available():
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let the C library keep large blocks for the next step instead of returning them at once.

    Getting them again costs a page fault per 4 kB. Only glibc has the setting; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def dropout(values: Tensor, p: float) -> Tensor:
    """Zero each element with probability `p`, to within 1e-5, and scale the others by 1 / (1 - p)."""
    if p in (0.0, 1.0) or values.device.type != "cpu" or not _use_own:
        return F.dropout(values, p)
    dropped_steps = round(p * STEPS)
    # One draw of 64 bits gives four elements their 16 bits.
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    lanes = words.view(torch.int16)[: values.numel()].view(values.shape)
    mask = torch.empty(values.shape, dtype=values.dtype)
    # The 16 bits are signed, so they start at -STEPS / 2.
    torch.ge(lanes, dropped_steps - STEPS // 2, out=mask)
    return values * mask.mul_(STEPS / (STEPS - dropped_steps))


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float = 0.0) -> Tensor:
    """Compute scaled dot-product attention: (B, H, T, D) -> (B, H, T, D).

    Args:
        query: (B, H, T, D).
        key: likewise.
        value: likewise.
        mask: true where a key counts, or numbers that are added to the scores; broadcasts to (B, H, T, T).
        p: share of the weights that is dropped.
    """
    fused = p == 0.0 or query.device.type != "cpu" or not _use_own
    # The fused form hides its shapes from an export.
    if fused and not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=p)
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return dropout(scores.softmax(-1), p).to(value.dtype) @ value


def replace_dropout(module: nn.Module) -> None:
    """Replace every `nn.Dropout` inside a module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:  # not a subclass, such as the `Dropout` of this file
                setattr(parent, name, Dropout(child.p))
