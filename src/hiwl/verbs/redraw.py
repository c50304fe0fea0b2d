"""`hiwl redraw`: how certain the labels are (:mod:`hiwl.measure.label_noise`).

Writes into the survey's folder in ``results``:

- ``redraw.json``: shares over all galaxies, for crowds of several sizes.
- ``redraw.csv.gz``: for each selected galaxy, how often a crowd of `USUAL` size drops it or names another class.

`hiwl report` makes a page of it.
"""

import json

from tqdm import tqdm

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing, sha256, write_json
from hiwl.core.layout import ID, RAW_MANIFEST, RAW_TABLE
from hiwl.core.record import results_folder
from hiwl.core.section import PARAMS, read_section
from hiwl.measure.label_noise import USUAL, of_galaxies, redraw, summarise
from hiwl.survey.selection import SelectParams
from hiwl.survey.tables import read_table

VOLUNTEERS = (20, 40, USUAL, 60)  # from the fewest that the paper admits
REPEATS = 200
SEED = 1


def main() -> None:
    """Redraw the current survey's votes; of real galaxies, keep the figures.

    Raises:
        HiwlError: the survey in ``data/raw`` has no votes, is not the one that params.yaml names, or is not selected by
            rules.
    """
    manifest = json.loads(RAW_MANIFEST.read_text())
    survey = read_section("raw.survey")
    if manifest["table"] != "votes":
        raise HiwlError(
            f"{RAW_MANIFEST}: the table holds {manifest['table']}, and only votes can be drawn again. "
            "Bring a survey of votes in: `dvc exp run -S survey=votes select`"
        )
    if manifest["survey"] != survey:
        raise HiwlError(
            f"{RAW_MANIFEST}: holds the survey {manifest['survey']}, {PARAMS} names {survey}. "
            "Bring that one in: `dvc repro select`"
        )
    votes = read_table(RAW_TABLE)
    params = SelectParams.parse(read_section("select"), "select")
    crowds = {
        volunteers: redraw(votes, params, volunteers, REPEATS, SEED)
        for volunteers in tqdm(VOLUNTEERS, "redrawing", unit="crowd")
    }
    found = [summarise(drawn) for drawn in crowds.values()]
    for crowd in found:
        every = crowd["selected"]
        print(
            f"redraw: {crowd['volunteers']} volunteers: of {every['galaxies']} selected galaxies "
            f"{every['stayed']['share']:.2%} stay selected, {every['changed']['share']:.2%} of these in another class"
        )
    if (folder := results_folder(read_section("raw"))) is not None:
        content = {"crowds": found, "repeats": REPEATS, "rules": params.rules, "seed": SEED, "survey": survey}
        write_json(folder / "redraw.json", content | {"table_sha256": sha256(RAW_TABLE)})
        with replacing(folder / "redraw.csv.gz") as beside:
            of_galaxies(votes[ID], crowds[USUAL]).to_csv(
                beside, index=False, float_format="%.3f", compression={"method": "gzip", "mtime": 0}
            )
        print(f"redraw: {folder / 'redraw.json'}, {folder / 'redraw.csv.gz'}")
