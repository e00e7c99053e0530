"""What is made of the vectors of a reply before anybody sees them: shorter ones, and of length 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import DimensionsError
from ..values import Vectors
from .reply import Decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    Only the first *dimensions* numbers of each vector are kept, which are scaled to length 1; all of them, if it is
    ``None``. Whole vectors are scaled if *normalize* is true.
    """

    dimensions: int | None = None
    normalize: bool = False

    def __bool__(self) -> bool:
        return self.dimensions is not None or self.normalize

    def apply(self, decoded: Decoded, *, request_id: str | None = None) -> Decoded:
        """
        *decoded* in this shape. A vector without a direction joins the bad rows: nothing can be scaled to length 1.

        Raises :class:`DimensionsError` when the vectors have fewer numbers than are to be kept.
        """
        whole = decoded.vectors.shape[1]
        if not self or not whole:  # no row is any good
            return decoded
        if self.dimensions is not None and self.dimensions > whole:
            raise DimensionsError(
                f"expected vectors of at least {self.dimensions:,} numbers, of which to keep so many; got {whole:,}",
                status=200,
                request_id=request_id,
            )
        vectors, lengths = _scaled(decoded.vectors[:, : self.dimensions])
        bad_rows = dict(decoded.bad_rows)
        for row in np.flatnonzero(lengths == 0).tolist():
            bad_rows.setdefault(row, f"nothing but zeros in its first {vectors.shape[1]:,} numbers")
        return replace(decoded, vectors=vectors, bad_rows=bad_rows, whole=whole)


AS_IT_IS = Shape()


def _scaled(vectors: Vectors) -> tuple[Vectors, np.typing.NDArray[np.float64]]:
    """
    The rows of *vectors* at length 1, in memory of their own, and the lengths they had.

    In float64, in which the square of no float32 is too large or too small. Rows that have no length are NaN.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    scaled = np.empty(vectors.shape, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # bad rows may be zeros, or hold what is not finite
        np.divide(vectors, lengths[:, np.newaxis], out=scaled, casting="same_kind")
    return scaled, lengths
