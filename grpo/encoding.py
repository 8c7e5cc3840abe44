"""What a policy's networks read of a row of numbers: categories become one-hot vectors.

It says too which of them are standardised by what was seen: neither one-hot vectors, nor small
whole numbers such as pixels, which are scaled by their bounds.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from grpo.observations import ObservationSpec

__all__ = ["Layout", "ObservationEncoder", "encode", "layout_of"]


class Layout(NamedTuple):
    """How the E encoded numbers follow from the numbers of a row."""

    source: npt.NDArray[np.int64]
    """Shape (E,): the number of the row that each is made of."""

    category: npt.NDArray[np.float64]
    """Shape (E,): its one-hot value is 1 where that number is this one; NaN for numbers."""

    centre: npt.NDArray[np.float64]
    """Shape (E,): what is taken off, before any observation was seen."""

    scale: npt.NDArray[np.float64]
    """Shape (E,): what it is divided by after that."""

    learned: npt.NDArray[np.bool_]
    """Shape (E,): both follow the observations; else they stay."""


@lru_cache
def layout_of(spec: ObservationSpec) -> Layout:
    """How the encoded numbers follow from a row's; kept."""
    columns: list[tuple[npt.NDArray[Any], ...]] = []
    for leaf, own in spec.columns():
        source = np.arange(own.start, own.stop)
        if leaf.categories:
            values = [
                np.arange(n) + start for n, start in zip(leaf.categories, leaf.start, strict=True)
            ]
            size = leaf.encoded_size
            source, category = np.repeat(source, leaf.categories), np.concatenate(values)
            columns.append((source, category, np.zeros(size), np.ones(size), np.zeros(size)))
            continue
        low, high = (np.broadcast_to(bound or 0.0, leaf.size) for bound in (leaf.low, leaf.high))
        scale = high - low if leaf.low else np.ones(leaf.size)
        learned = np.full(leaf.size, not leaf.low)
        columns.append((source, np.full(leaf.size, np.nan), low, scale, learned))
    source, category, centre, scale, learned = map(np.concatenate, zip(*columns, strict=True))
    return Layout(
        source, category.astype(np.float64), centre.astype(np.float64), scale, learned.astype(bool)
    )


def encode(spec: ObservationSpec, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What networks read: (N, *shape) → (N, *encoded shape), before it is standardised."""
    own = spec.unmasked(rows)
    if not any(leaf.categories for leaf in spec.leaves):
        return own
    layout = layout_of(spec)
    numbers = own.reshape(len(own), -1)[:, layout.source]
    one_hot = numbers == layout.category
    return np.where(np.isnan(layout.category), numbers, one_hot)


class ObservationEncoder(torch.nn.Module):
    """`encode` in torch, for training on tensors and for export.

    Args:
        spec: the observations; some have categories, a mask, or what a policy remembers.
    """

    def __init__(self, spec: ObservationSpec) -> None:
        super().__init__()
        layout = layout_of(spec)
        self._size, self._own = spec.size, spec.observed
        self._shape = spec.encoded_shape
        self._has_categories = any(leaf.categories for leaf in spec.leaves)
        if not self._has_categories:
            return
        for name, value in (
            ("source", layout.source),
            ("is_category", ~np.isnan(layout.category)),
            ("category", np.nan_to_num(layout.category)),
        ):
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, *shape) → (N, *encoded shape)."""
        own = rows.reshape(-1, self._size)[:, : self._own]
        if not self._has_categories:
            return own.reshape(-1, *self._shape)
        numbers = own.index_select(1, self.get_buffer("source"))
        one_hot = (numbers == self.get_buffer("category").to(numbers.dtype)).to(numbers.dtype)
        return torch.where(self.get_buffer("is_category"), one_hot, numbers)
