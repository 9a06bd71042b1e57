"""Dropout that does not hold up small networks on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16
_LOWEST = -(2**15)  # of int16
_ALL_BITS = torch.iinfo(torch.int64).min


class Dropout(nn.Module):
    """Set elements to zero at random and scale the others so that the mean stays; the identity in evaluation.

    On a CPU torch draws one element after the other, which took a tenth of a whole training step of ``small_cnn``.
    There four elements share one draw of 64 bits here, so p is rounded to a multiple of 1/65536; on other devices
    this is torch's dropout.

    Args:
        p: Share of elements that are dropped, 0 or more and less than 1.

    Raises:
        ValueError: If p is out of range.

    Reference: Srivastava et al., 2014, Dropout: a simple way to prevent neural networks from overfitting.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout={p}; must be 0 or more and less than 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Tensor of any shape in, the same shape and layout out."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p, training=True)
        return x * _mask(x, min(round(self.p * _LEVELS), _LEVELS - 1))

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"p={self.p}"


def _mask(x: Tensor, dropped_levels: int) -> Tensor:
    """0 or 1 / (1 - p) for every element of ``x``, laid out as ``x`` is."""
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(_ALL_BITS, None)
    kept = draws.view(torch.int16)[:count] >= dropped_levels + _LOWEST
    mask = kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped_levels))
    # A product of two layouts would walk one of them crosswise.
    dense = x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return mask.as_strided(x.shape, x.stride()) if dense else mask.view(x.shape)
