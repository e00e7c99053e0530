"""The types that the numbers of a result may have. In the journal they are always float32. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ConfigurationError
from ..values import Vectors

Dtype: TypeAlias = Literal["float32", "float16"]


def check_dtype(dtype: str) -> None:
    """Raise :class:`ConfigurationError` for what is no :data:`Dtype`."""
    if dtype not in get_args(Dtype):
        raise ConfigurationError(f"dtype: expected one of {', '.join(get_args(Dtype))}, got {dtype!r}")


def rows_that_fit(vectors: Vectors, dtype: Dtype) -> npt.NDArray[np.bool_]:
    """
    Which rows of *vectors* are vectors in this *dtype* too: finite, as float16 is up to 65,504, and not all zeros.

    bool, shape (rows,).
    """
    if dtype == "float32":
        return np.ones(len(vectors), bool)
    narrow = rounded(vectors, dtype)
    fit: npt.NDArray[np.bool_] = np.isfinite(narrow).all(axis=1) & (narrow != 0).any(axis=1)
    return fit


def rounded(vectors: Vectors, dtype: Dtype) -> npt.NDArray[np.floating]:
    """*vectors* in *dtype*, little-endian and C-contiguous; infinite where they do not fit."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(vectors, np.dtype(dtype).newbyteorder("<"))
