"""Which texts are near each other: every pair whose character 4-gram sets reach a Jaccard limit.

In: distinct normalised texts. Out: index pairs, all of them and no others, the same in every run:
an exact set-similarity join, not a sketch that may miss (test_near_pairs_matches_brute_force).

    texts ─► rows of a sparse text × shingle matrix ─► candidates: rows that share one of their
    rarest shingles (prefix filter) ─► exact Jaccard of the candidates

Shingles that nine in ten texts share are the workload's template, not what is asked, and do not
count (test_near_pairs_ignores_a_shared_template). Sources: Chaudhuri et al. 2006 (prefix filter),
Bayardo et al. 2007 (All-Pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ownweights.dataset.normalise import NEAR_JACCARD, SHINGLE_CHARS

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Pairs = tuple[np.ndarray, np.ndarray]
Wanted = Callable[[np.ndarray, np.ndarray], np.ndarray]

TEMPLATE_FRAC = 0.9
MIN_TEXTS_FOR_TEMPLATE = 50
_CHUNK_ROWS = 2_000
_SHARED_EVERY = 1000000  # long rows must share more: fewer candidates, same pairs
_CHUNK_SHINGLES = 4_000_000  # of all candidates compared at once
_SLACK = 1e-9  # a product such as 0.8 × 35 may fall just above the whole number it is


def near_pairs(
    texts: Sequence[str], limit: float = NEAR_JACCARD, *, wanted: Wanted | None = None
) -> Iterator[Pairs]:
    """All pairs i < j of texts that are near, in chunks of two equally long index arrays.

    `wanted` says of candidate pairs which are worth comparing; all are when it is not given.
    """
    if len(texts) < 2:
        return
    matrix = without_template(shingle_matrix(texts))
    sizes = np.diff(matrix.indptr)
    for left, right in _candidates(matrix, limit):
        if wanted is not None:
            asked = wanted(left, right)
            left, right = left[asked], right[asked]  # noqa: PLW2901
        chunk = np.cumsum(sizes[left]) // _CHUNK_SHINGLES
        for start, stop in _runs(chunk):
            i, j = left[start:stop], right[start:stop]
            near = _pair_jaccard(matrix, i, j) >= limit
            if near.any():
                yield i[near], j[near]


def shingle_matrix(texts: Sequence[str]) -> csr_array:
    """Rows of the shingles that each text has, columns from the rarest shingle to the commonest.

    Shapes: (len(texts), distinct shingles), ones and zeros
    """
    rows, codes = _coded_shingles(texts)
    found, column = np.unique(codes, return_inverse=True)
    matrix = _incidence(rows, column, (len(texts), len(found)))
    df = np.bincount(matrix.indices, minlength=len(found))
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(df, kind="stable")] = np.arange(len(found))
    return _incidence(np.repeat(np.arange(len(texts)), np.diff(matrix.indptr)),
                      rank[matrix.indices], _shape(matrix))  # fmt: skip


def without_template(matrix: csr_array) -> csr_array:
    """The matrix without what nearly every row has; a row of nothing else keeps it."""
    num_rows, num_columns = _shape(matrix)
    df = np.bincount(matrix.indices, minlength=num_columns)
    is_template = df >= TEMPLATE_FRAC * num_rows
    if num_rows < MIN_TEXTS_FOR_TEMPLATE or not is_template.any():
        return matrix
    row = np.repeat(np.arange(num_rows), np.diff(matrix.indptr))
    kept = ~is_template[matrix.indices]
    num_kept = np.bincount(row, weights=kept, minlength=num_rows)
    kept |= num_kept[row] == 0
    return _incidence(row[kept], matrix.indices[kept], _shape(matrix))


def _coded_shingles(texts: Sequence[str]) -> Pairs:
    """The row and the code of every shingle; equal codes exactly for equal shingles."""
    padded = [f" {text} ".ljust(SHINGLE_CHARS, "\0") for text in texts]
    joined = "".join(padded).encode("utf-32-le", "surrogatepass")
    alphabet, letters = np.unique(np.frombuffer(joined, np.uint32), return_inverse=True)
    width = np.uint64(len(alphabet))
    assert len(alphabet) < 1 << 16, "four letters fit one 64-bit code"
    lengths = np.array([len(text) for text in padded])
    row = np.repeat(np.arange(len(texts)), lengths)
    last = len(letters) - SHINGLE_CHARS + 1
    codes = np.zeros(last, np.uint64)
    for offset in range(SHINGLE_CHARS):
        codes = codes * width + letters[offset : offset + last].astype(np.uint64)
    inside = row[:last] == row[SHINGLE_CHARS - 1 :]
    return row[:last][inside], codes[inside]


def _candidates(matrix: csr_array, limit: float) -> Iterator[Pairs]:
    """Pairs that may be near: rows of J ≥ limit share s of their first n − ⌈limit·n⌉ + s."""
    sizes = np.diff(matrix.indptr)
    num_needed = np.ceil(limit * sizes - _SLACK).astype(np.int64)
    num_shared = np.minimum(1 + sizes // _SHARED_EVERY, num_needed)
    row = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(row)) - matrix.indptr[:-1][row]
    is_first = place < (sizes - num_needed + num_shared)[row]
    prefix = _incidence(row[is_first], matrix.indices[is_first], _shape(matrix))
    columns = prefix.T.tocsr()
    for start in range(0, len(sizes), _CHUNK_ROWS):
        shared = (prefix[start : start + _CHUNK_ROWS] @ columns).tocoo()
        i, j = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        small, large = np.minimum(sizes[i], sizes[j]), np.maximum(sizes[i], sizes[j])
        may = (i < j) & (small >= limit * large - _SLACK)
        may &= shared.data >= np.minimum(num_shared[i], num_shared[j])
        yield i[may], j[may]


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and stop of every run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return (pair for pair in pairwise(edges) if pair[0] < pair[1])


def _pair_jaccard(matrix: csr_array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    sizes = np.diff(matrix.indptr)
    shared = np.asarray(matrix[left].multiply(matrix[right]).sum(axis=1)).ravel()
    return shared / (sizes[left] + sizes[right] - shared)


def _shape(matrix: csr_array) -> tuple[int, int]:
    shape: Any = matrix.shape  # typed as optional by scipy
    return shape


def _incidence(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """A matrix of ones at (rows, columns), each row's columns ascending, repeats counted once."""
    from scipy.sparse import csr_array

    ones: Any = np.ones(len(rows), np.int32)
    matrix = csr_array((ones, (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    matrix.sort_indices()
    return matrix
