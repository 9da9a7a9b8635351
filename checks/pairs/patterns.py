"""What a fault of one node can look like: all its traffic, one direction, one rail, one direction of one rail.

A test of a pair gives one value per direction and rail. Half of their noise may be common to all of them (host
jitter), so a pattern is scored by generalised least squares: the cells outside the pattern serve as controls, and a
node-wide loss does not pass for a loss of one rail, nor one rail's for the node's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Cells that a fault touches. rail None: all rails. direction "": both, as seen from the node."""

    rail: int | None
    direction: str


def patterns(rails: int) -> list[Pattern]:
    """Every pattern that can be told from the others with so many rails; the first is the whole node."""
    found = [Pattern(None, word) for word in ("", "tx", "rx")]
    if rails > 1:
        found += [Pattern(rail, word) for rail in range(rails) for word in ("", "tx", "rx")]
    return found


def cells(rails: int) -> NDArray[np.bool_]:
    """(patterns, 2 * rails): which cells, tx of all rails first, belong to each pattern."""
    masks = []
    for pattern in patterns(rails):
        mask = np.zeros((2, rails), dtype=np.bool_)
        ways = {"": slice(None), "tx": slice(0, 1), "rx": slice(1, 2)}[pattern.direction]
        mask[ways, slice(None) if pattern.rail is None else pattern.rail] = True
        masks.append(mask.ravel())
    return np.asarray(masks)


@dataclass(frozen=True, slots=True)
class Weights:
    """How one class of pairs turns standardised cells into pattern scores.

    matrix: (2 * rails, patterns); a test's cells, in units of their noise, times this are the scores, each N(0, 1)
    where nothing is wrong. gain: score per unit of loss on the pattern's cells.
    """

    matrix: Floats
    gain: Floats


def weights(rails: int, common: float) -> Weights:
    """Generalised least squares for cells of which the share `common` of the variance is shared by the whole test."""
    size = 2 * rails
    inverse = (np.eye(size) - common / (1 - common + size * common)) / (1 - common)
    masks = cells(rails).astype(np.float64)
    weighted = inverse @ masks.T
    gain = np.sqrt(np.sum(masks.T * weighted, axis=0))
    return Weights(weighted / gain, gain)
