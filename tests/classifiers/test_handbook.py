"""docs/causes.md says what the rules say."""

import os
from pathlib import Path

from classifiers import rulebook
from classifiers.handbook import page

PAGE = Path(__file__).parents[2] / "docs" / "causes.md"


def test_the_golden_page_of_causes_is_the_one_that_the_rules_make() -> None:
    made = page(rulebook.read())
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(made, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == made, "docs/causes.md is stale: `make update-golden`, then read the diff"


def test_every_cause_has_its_section_with_a_rule() -> None:
    text = page(rulebook.read())
    sections = text.split("\n## ")[1:]
    assert len(sections) == 31
    assert [section.split("\n")[0] for section in sections if "- rule `" not in section] == []
