"""Where a survey comes from: what can be chosen of each kind of ``raw.source``. A file a kind brings it in."""

from typing import Annotated, Literal

from pydantic import Field

from hiwl.core.section import Section


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
    """Whether the table holds the 37 vote fractions or `GalaxyID,class`."""
    images_sha256: str | None = None
    table_sha256: str | None = None
    """What the files contain (of a folder: the archive that the stage makes of it). Where it is null or another, the
    stage stops and says what it found."""
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
