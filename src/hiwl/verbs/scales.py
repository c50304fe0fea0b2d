"""How many times smaller galaxies are shown than in training: one number for all, or each picture's by its radius."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.model.answer import MOST_SCALE
from hiwl.model.tree import Floats
from hiwl.survey.inputs import Input

R90 = 50.0
"""Petrosian radius (90 %) of every galaxy in Galaxy Zoo 2's pictures, in pixels: they have .02 of it a pixel (Willett
et al. 2013, section 2)."""


class Scales(NamedTuple):
    """The options."""

    scale: float = 1.0
    arcsec: float | None = None
    """Arcseconds a pixel."""
    radius: str | None = None
    """The column of Petrosian radii (90 %), in arcseconds."""

    def check(self, inputs: Sequence[Input]) -> None:
        """Before work begins.

        Raises:
            HiwlError: an option lacks the other, or no input has the column.
        """
        if (self.arcsec is None) != (self.radius is None):
            raise HiwlError(
                "--arcsec and --radius belong together: arcseconds a pixel, and the column of radii in arcseconds"
            )
        if self.radius is not None and not any(self.radius in one.columns for one in inputs):
            columns = dict.fromkeys(name for one in inputs for name in one.columns)
            raise HiwlError(f"--radius {self.radius}: there is {', '.join(columns)}")

    def of(self, table: pd.DataFrame) -> float | Floats:
        """Of the rows of a table; `scale` where the radius is not known or not sensible."""
        if self.arcsec is None or self.radius not in table:
            return self.scale
        radii = pd.to_numeric(table[self.radius], errors="coerce").to_numpy(float, na_value=np.nan)
        scales = R90 * self.arcsec / np.where(radii > 0, radii, np.nan)
        is_sensible = (scales >= 1 / MOST_SCALE) & (scales <= MOST_SCALE)
        return np.where(is_sensible, scales, self.scale)
