"""Where a survey comes from: what can be chosen of each kind of ``raw.source``. A file a kind brings it in."""

from typing import Annotated, Literal

from pydantic import Field

from hiwl.core.section import Section
from hiwl.survey.published import Fractions


class Simulated(Section):
    """A survey drawn on the spot."""

    kind: Literal["simulated"] = "simulated"
    galaxies: int = Field(ge=1, le=200_000)
    """Clear and unclear ones."""
    seed: int = Field(ge=0, lt=2**32)
    volunteers: int = Field(ge=10, le=1000)
    """People who vote on each galaxy; some 40 did in Galaxy Zoo 2."""


class Files(Section):
    """A user's own pictures and table; where they are, the settings say."""

    kind: Literal["files"]
    table: Literal["votes", "labels"]
    """Whether the table holds votes (of the competition or of Galaxy Zoo 2's catalogue), or a class for each galaxy."""
    id: str | None = None
    """The column that names the pictures; null: `GalaxyID`."""
    label: str | None = None
    """The column of the class; null: `class`."""
    steps: dict[str, tuple[float, float]] = Field({})
    """Where `label` is a number, such as a Hubble stage, for each class from which number to which, both included."""
    fractions: Fractions = "debiased"
    """Which of the catalogue's fractions are taken for the votes."""
    galaxies: int | None = Field(None, gt=0)
    """How many rows of the table have a picture, where the others are to be passed over; null: all of them must."""
    images_sha256: str | None = None
    table_sha256: str | None = None
    """What the files contain (of a folder: the list that `sha256sum` gives). `hiwl survey` writes it down; where it is
    null or another, the stage stops and says so."""
    votes_sha256: str | None = None
    """To a table of labels, the votes on those of its galaxies that a second table (HIWL_VOTES) knows; null: none."""


class Kaggle(Section):
    """The competition itself."""

    kind: Literal["kaggle"]
    rows: int = Field(gt=0)
    """How many galaxies it has."""


class RawParams(Section):
    """Section `raw`."""

    survey: str = Field(pattern=r"^[a-z0-9-]+$")
    """The name that runs, records and results carry."""
    source: Annotated[Simulated | Files | Kaggle, Field(discriminator="kind")]
