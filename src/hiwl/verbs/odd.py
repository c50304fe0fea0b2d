"""`hiwl odd --in features.parquet`: the galaxies that are odd, and the more so the more you say which are.

Without answers, those farthest from their neighbours. With answers from 1 (dull) to 5, from a table or clicked on a
page (`--ask`), those that are expected to interest whoever gave them. Answers are kept as they come; a later call goes
on.
"""

from pathlib import Path

import pandas as pd

from hiwl.core.errors import HiwlError
from hiwl.core.files import replacing, write_text
from hiwl.core.pages import page
from hiwl.verbs.embed import link
from hiwl.verbs.features import FeatureTable, names_of
from hiwl.verbs.parts import only_writer
from hiwl.verbs.search import ANSWER, Search

TOP = 60  # on the page of the ranking
TEMPLATE = Path(__file__).with_name("odd.html.jinja")


def main(features: str, answers: str | None, output: str, ask: bool, port: int) -> None:
    """Write the ranking as a table, and the first of it as a page beside it.

    Raises:
        HiwlError: the table of features or of answers is not usable, or the port is taken.
    """
    out = Path(output)
    if out.suffix.lower() != ".csv":
        raise HiwlError(f"{out}: the ranking is a table; name it .csv")
    if answers and not ask and not Path(answers).exists():
        raise HiwlError(f"{answers}: not found; with --ask it is begun")
    table = FeatureTable(Path(features))
    kept = Path(answers) if answers else Path(features).with_suffix(".answers.csv")
    if ask:
        from hiwl.verbs.asking import ask as ask_on_page

        with only_writer(kept):
            search = Search(table, kept)
            search.check_kept()
            ask_on_page(search, port)
    else:
        search = Search(table, kept)
    ranking = search.ranking()
    with replacing(out) as beside:
        ranking.to_csv(beside, index=False)
    _write_page(search, ranking, out.with_suffix(".html"))
    known = len(search.answers)
    first = f"by {known} answers of {search.kept}" if known else "by the distance from their neighbours; --ask for more"
    print(f"odd: {out}: {len(ranking):,} galaxies, the oddest first, {first}; {out.with_suffix('.html')} shows them")


def _write_page(search: Search, ranking: pd.DataFrame, to: Path) -> None:
    shown = ranking.head(TOP)
    names = names_of(search.table.given)
    galaxies = [
        {
            "name": names.iloc[int(one["row"])],
            "picture": link(jpeg),
            "told": f"{one['expected']:.2f}" if search.answers else f"{one['apart']:.3f}",
            "answer": None if pd.isna(one[ANSWER]) else one[ANSWER],
        }
        for one, jpeg in zip(shown.to_dict("records"), search.table.pictures(shown["row"].to_numpy()), strict=True)
    ]
    values = {
        "galaxies": galaxies,
        "number": len(ranking),
        "table": str(search.table.path),
        "known": len(search.answers),
    }
    write_text(to, page(TEMPLATE, values))
