"""Dropout, attention and memory: the same mathematics as torch's, in the form that a device runs fastest.

On a GPU and in evaluation they are torch's own. On a CPU torch draws dropout masks one number at a
time and leaves its fast attention as soon as there is dropout; both cost more there than the layers'
matrix products leave time for (docs/performance.md has the figures).

Axis letters: B batch, H attention heads, T frames.
"""

import ctypes
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
_own = False
STEPS = 1 << 16
"""A random number of 16 bits decides about one element: probabilities are multiples of 1 / STEPS."""


class Dropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input


def choose(kind: str) -> None:
    """Which kernels this process uses from now on: `own` where they pay, or always `torch`'s.

    Own dropout masks are other draws of the same distribution. From now on freed memory is kept, whatever
    the kind, which cannot be taken back in the same process.
    """
    global _own
    _own = kind == "own"
    if not torch.cuda.is_available():
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Lets the C library keep large blocks for the next step instead of giving them back at once.

    Taking them again costs a page fault per 4 kB; glibc alone has the setting, elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def dropout(values: Tensor, p: float) -> Tensor:
    """Zeroes each element with probability `p`, to within 1e-5, and scales the others by 1 / (1 - p)."""
    if p in (0.0, 1.0) or values.device.type != "cpu" or not _own:
        return F.dropout(values, p)
    dropped = round(p * STEPS)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    lanes = words.view(torch.int16)[: values.numel()].view(values.shape)
    kept = torch.empty(values.shape, dtype=values.dtype)
    torch.ge(lanes, dropped - STEPS // 2, out=kept)
    return values * kept.mul_(STEPS / (STEPS - dropped))


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float = 0.0) -> Tensor:
    """Scaled dot-product attention: (B, H, T, D) -> (B, H, T, D).

    Args:
        query: (B, H, T, D).
        key: likewise.
        value: likewise.
        mask: true where a key counts, or what is added to the scores; broadcasts to (B, H, T, T).
        p: share of the weights that is dropped.
    """
    fused = p == 0.0 or query.device.type != "cpu" or not _own
    if fused and not torch.compiler.is_exporting():  # whose shapes the fused form hides
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=p)
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return dropout(scores.softmax(-1), p).to(value.dtype) @ value


def replace_dropout(module: nn.Module) -> None:
    """Replaces every `nn.Dropout` inside a module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
