"""Numbers and words as text that a page reads back: base64 of little-endian arrays, and JSON inside of HTML."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LEVELS, LEVELS_FINE = 255, 65535  # of a quantised number
NOT_THERE = 0  # level of NaN; numbers start at 1
FORBIDDEN = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def array(values: ArrayLike, kind: str) -> str:
    """An array of a kind of numpy, such as "f4", as text."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode("ascii")


def words(values: pd.Series) -> dict[str, Any]:
    """A column of words: each of them once, and which it is in each row; "" where it is missing."""
    codes, levels = pd.factorize(values.astype(object).where(values.notna(), "").astype(str))
    kind = next(kind for kind in ("u1", "u2", "u4") if len(levels) <= np.iinfo(np.dtype(kind)).max)
    return {"levels": [str(level) for level in levels], "codes": array(codes, kind), "codes_kind": kind}


def quantised(values: np.ndarray, *, fine: bool = False) -> dict[str, Any]:
    """Numbers ``(R, ...)`` in 8 bits (16 if `fine`), from the least to the largest of each row; NaN is kept.

    `width` is how many each row has.
    """
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    known = np.isfinite(flat)
    low = np.where(known, flat, np.inf).min(1, initial=np.inf)
    high = np.where(known, flat, -np.inf).max(1, initial=-np.inf)
    low, high = np.where(low <= high, low, 0.0), np.where(low <= high, high, 0.0)
    unit = np.where(high > low, high - low, 1.0)[:, None]
    most = LEVELS_FINE if fine else LEVELS
    level = 1 + np.rint((most - 1) * np.where(known, flat - low[:, None], 0.0) / unit)
    level = np.where(known, level, NOT_THERE)
    text = {"low": array(low, "f4"), "high": array(high, "f4"), "values": array(level, "u2" if fine else "u1")}
    return text | {"width": flat.shape[1]}


def as_json(value: Any) -> str:
    """JSON that may stand inside a script element: no name in it ends the element or starts another."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign, escaped in FORBIDDEN.items():
        text = text.replace(sign, escaped)
    return text
