"""Writes the pages that people read; prose stands in the templates beside this file."""

import base64
import re
from pathlib import Path
from typing import Any

import pandas as pd

from hiwl.core.files import write_text
from hiwl.core.pages import page
from hiwl.measure.label_noise import doubts
from hiwl.measure.plots import save
from hiwl.studies.charts import study_chart, study_pictures, summary_chart
from hiwl.studies.study_page import Report, study_page
from hiwl.studies.summary import best_cell, columns, summary
from hiwl.studies.table import answers_of, class_counts, readings_of
from hiwl.studies.words import render

DOCS = Path("docs")
OTHERS = "features"
"""The page of `hiwl worth`, which lies beside those of the studies."""


def write_pages(report: Report) -> list[Path]:
    """Write ``docs/results.md``, ``docs/results/*`` and ``report.html``; gives what was written."""
    folder = DOCS / "results"
    pages = {DOCS / "results.md": render("summary", **summary(report))}
    charts: dict[Path, Any] = {}
    if (best := best_cell(report)) is not None:
        charts[DOCS / "results.svg"] = summary_chart(columns(report, best))
    for name in report.current():
        pages[folder / f"{name}.md"] = render("study", **study_page(report, name))
        charts[folder / f"{name}.svg"] = study_chart(report, name)
    if report.noise:
        pages[folder / "label-noise.md"] = render("label_noise", **_noise_page(report, best))
    pages[folder / "papers-tables.md"] = render("paper", splits=_splits(report))
    readings = {file: found for file, kept in report.kept.items() if (found := readings_of(kept))}
    pages[folder / "earlier.md"] = render("earlier", report=report, readings=readings)
    for path, figure in charts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    for path, text in pages.items():
        write_text(path, text)
    for stale in {*folder.glob("*.md"), *folder.glob("*.svg")} - {*pages, *charts}:
        if stale.stem != OTHERS:
            stale.unlink()
    write_text(Path("report.html"), _html(report, pages))
    if best is not None:
        _renew_headline(Path("README.md"), columns(report, best))
    return [*pages, *charts, Path("report.html")]


def _renew_headline(readme: Path, of: list[dict[str, Any]]) -> None:
    """Write the two headline numbers between the marks in the README, where it has them."""
    text = readme.read_text() if readme.exists() else ""
    before, mark, rest = text.partition("<!-- headline -->\n")
    if mark:
        sentence = render("headline", ours=of[1], theirs=of[0])
        write_text(readme, before + mark + sentence + rest[rest.index("<!-- -->") :])


def _noise_page(report: Report, best: tuple[str, str] | None) -> dict[str, Any]:
    """What ``docs/results/label-noise.md`` says: second crowds on all galaxies, and on the best model's errors."""
    errors = {}
    if best is not None:
        answers = answers_of(report.of(*best)["file"].iloc[0]).reset_index()
        known = pd.concat([of_each for _, of_each in report.noise.values()])
        errors = doubts(answers, known)
    return {"noise": {survey: found for survey, (found, _) in report.noise.items()}, "best": best, "errors": errors}


def _splits(report: Report) -> dict[str, dict[str, dict[str, int]]]:
    """By survey: the galaxies of each class in each part of the paper's one split (its Table 2), of this repository's
    runs that trained on all of it."""
    found = {}
    for row in report.runs.to_dict("records"):
        choice = report.kept[row["file"]].choice
        is_whole = choice.parameters["split"]["fold"] is None and choice.parameters["split"]["training"] is None
        if is_whole and row["survey"] not in found and (counted := class_counts(choice)):
            found[str(row["survey"])] = counted
    return found


def _html(report: Report, pages: dict[Path, str]) -> str:
    """All pages in one file that loads nothing, each study's pictures beside its text."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark").enable("table")
    sections = []
    for path, text in pages.items():
        body, chart = markdown.render(text), path.with_suffix(".svg")
        if chart.exists():
            body = body.replace(f'src="{chart.name}"', f'src="{_uri("svg+xml", chart.read_bytes())}"')
        for other in pages:  # a page is a section here
            body = re.sub(rf'href="[^"]*\b{other.stem}\.md"', f'href="#{other.stem}"', body)
        body = body.replace('href="glossary.md"', f'href="{DOCS / "glossary.md"}"')
        pictures = study_pictures(report, path.stem) if path.stem in report.current() else {}
        sections.append(
            {
                "id": path.stem,
                "title": text.split("\n", 1)[0].lstrip("# "),
                "body": body,
                "pictures": {title: _uri(kind, content) for title, (kind, content) in pictures.items()},
            }
        )
    return page(Path(__file__).with_name("report.html.jinja"), {"sections": sections})


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
