"""How alike two strings look."""

import pytest

from synthesis.text.similarity import looks_alike, similarity


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [("Oslo", "oslo", 1), ("kitten", "sitting", 1 - 3 / 7), ("", "", 1), ("", "abc", 0), ("abc", "xyz", 0)],
)
def test_similarity_is_the_edit_distance_over_the_longer_length(first: str, second: str, share: float) -> None:
    assert similarity(first, second) == similarity(second, first) == share


def test_what_is_easily_taken_for_each_other() -> None:
    assert looks_alike("report_2025.xlsx", "report_2026.xlsx")
    assert not looks_alike("Oslo", "Bern")
    assert not looks_alike("Rome", "Rome and all the cities around it")
