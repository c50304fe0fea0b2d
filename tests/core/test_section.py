from pathlib import Path

import pytest

from hiwl.core.errors import HiwlError
from hiwl.core.section import check_unchanged, forget_read, read_section


def test_what_was_edited_since_it_was_read_is_named_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("params.yaml")
    file.write_text("raw: {survey: mine, source: 1}\ntrain: {seed: 5}\nsplit: {seed: 1}\n")
    forget_read()
    assert read_section("raw.survey") == "mine"
    assert read_section("train") == {"seed": 5}
    file.write_text("raw: {survey: mine, source: 2}\ntrain: {seed: 5}\nsplit: {seed: 2}\n")
    check_unchanged()  # neither is what was read
    file.write_text("raw: {survey: yours}\ntrain: {seed: 6}\n")
    with pytest.raises(HiwlError, match=r"edited while this stage ran: raw\.survey, train\. What"):
        check_unchanged()
    forget_read()
    check_unchanged()
