"""What a value is mistaken for: a member of its set, a file that exists."""

import random
from typing import Any

import pytest

from synthesis.authors.offline.deviations import closed_set, deviations

SETS: list[tuple[dict[str, Any], str, set[str]]] = [
    ({"enum": ["left", "right", "center"]}, "left", {"right", "center"}),
    ({"description": "Unit of the width ('points', 'cm' or 'inches')"}, "cm", {"points", "inches"}),
    ({"description": "One of rows|columns"}, "rows", {"columns"}),
    ({"description": "Alignment: left, center or right"}, "left", {"center", "right"}),
    ({"description": "The title, e.g. 'Emma', 'Dune' or 'Kim'"}, "Dune", set()),
    ({"description": "A fruit such as apple, pear or plum"}, "apple", set()),
    ({"description": "Alignment: left, center or right"}, "diagonal", set()),
    ({"description": "The text to write"}, "Overview", set()),
]


@pytest.mark.parametrize(("schema", "value", "others"), SETS)
def test_a_closed_set_is_what_the_schema_or_the_description_closes(
    schema: dict[str, Any], value: str, others: set[str]
) -> None:
    assert set(closed_set(value, schema, [])) == others


@pytest.mark.parametrize(("schema", "value", "others"), SETS)
def test_a_member_of_a_closed_set_deviates_within_it(schema: dict[str, Any], value: str, others: set[str]) -> None:
    found = deviations(value, schema, "p", [], {}, random.Random(0))
    if others:
        assert {option for _, option in found} <= others
        assert not any(kind == "irrelevance" for kind, _ in found), "they are all of one class"
    else:
        assert any(kind == "irrelevance" for kind, _ in found)


def test_a_path_that_exists_deviates_to_one_that_exists() -> None:
    files = ["/data/letter.docx", "/data/report.docx", "/data/minutes.docx", "/data/sales.xlsx"]
    found = deviations("/data/report.docx", {"type": "string"}, "filename", [], {}, random.Random(0), files=files)
    assert {option for _, option in found} == {"/data/letter.docx", "/data/minutes.docx"}
    new = deviations("/data/new.docx", {"type": "string"}, "filename", [], {}, random.Random(0), files=files)
    assert {option for _, option in new} - set(files), "what is to be made is named otherwise"
    alone = deviations("/data/sales.xlsx", {"type": "string"}, "path", [], {}, random.Random(0), files=files)
    assert alone, "without another of its kind it deviates by name"


@pytest.mark.parametrize(
    ("value", "ends"),
    [("Anna Weber", "Anna Weber"), ("Side Note", "Side Note"), ("Please reply by Friday.", "please reply by Friday.")],
)
def test_a_modifier_before_a_name_leaves_it_as_it_is_written(value: str, ends: str) -> None:
    found = [text for seed in range(20) for _, text in deviations(value, {}, "p", [], {}, random.Random(seed))]
    longer = [text for text in found if text.lower().endswith(f" {ends.lower()}")]
    assert longer
    assert all(text.endswith(f" {ends}") for text in longer)
