"""Links: a feature with `K` categories is ``K - 1`` binomials, each category out of itself and all that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Links:
    """Which of `T` links make which of `F` features, over `K` categories in all; links of a feature are neighbours."""

    feature: Ints  # (T,)
    category: Ints  # (T,) whose share it is
    following: Ints  # (T,) category next in order, which the last link of a feature leaves over
    feature_of_category: Ints  # (K,)
    n_features: int

    @classmethod
    def in_order(cls, feature: Ints) -> Links:
        """Of features ``(T,)`` whose categories come in the order of their links."""
        n = int(feature.max()) + 1 if len(feature) else 0
        category = np.arange(len(feature)) + feature
        return cls(feature, category, category + 1, np.repeat(np.arange(n), np.bincount(feature, minlength=n) + 1), n)

    def largest(self, values: Ints) -> Ints:
        """``(F,)`` the largest of the values ``(T,)`` of a feature's links; 0 where it has none."""
        out = np.zeros(self.n_features, dtype=np.int64)
        np.maximum.at(out, self.feature, values)
        return out

    def categories_of(self, used: Bools) -> Ints:
        """Categories of the features whose links are `used` ``(T,)``, in the order of their links, the rest last."""
        last = np.append(self.feature[1:] != self.feature[:-1], True)
        out = []
        for k in np.flatnonzero(used):
            out.append(self.category[k])
            if last[k]:
                out.append(self.following[k])
        return np.array(out, dtype=np.int64)


@dataclass(frozen=True)
class Spans:
    """Which links make which feature: links of one follow each other."""

    start: Ints  # (F,) first link of each feature
    length: Ints  # (F,)

    @classmethod
    def of(cls, feature: Ints) -> Spans:
        """From the feature of each link, sorted."""
        _, start, length = np.unique(feature, return_index=True, return_counts=True)
        return cls(start, length)

    def links(self, features: Ints) -> tuple[Ints, Spans]:
        """The links of some features, one feature after another, and where each feature's are among them."""
        length = self.length[features]
        start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
        within = np.arange(length.sum()) - np.repeat(start, length)
        return np.repeat(self.start[features], length) + within, Spans(start, length)

    def sum(self, values: Floats) -> Floats:
        """Sums over the links of each feature."""
        return np.asarray(np.add.reduceat(values, self.start, axis=0))
