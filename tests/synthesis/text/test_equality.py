"""Each way of comparing, and how it differs from the others."""

from synthesis.text.equality import canonical, normal_form, request_key, same_meaning


def test_as_json_a_value_is_the_same_only_as_it_is_written() -> None:
    assert canonical({"b": 1, "a": [None, "é"]}) == canonical({"a": [None, "é"], "b": 1})
    assert len({canonical(value) for value in (1, 1.0, True, "1", [1])}) == 5


def test_values_of_one_meaning_are_written_in_several_ways() -> None:
    for first, second in ((3, 3.0), ("Bern", "bern "), ("#FF0000", "ff0000"), ("$A$1", "A1"), ("/a/./b", "/a/b")):
        assert normal_form(first) == normal_form(second)
        assert same_meaning(first, second)
    assert normal_form("2+2") != normal_form("4")
    assert same_meaning("2+2", "1+3")
    assert not same_meaning(True, 1)
    assert not same_meaning("2+2", "2+3")


def test_requests_are_duplicates_whatever_their_case_and_punctuation() -> None:
    assert request_key("Read  A1, please.") == request_key("read a1 please")
    assert request_key("Read A1.") != request_key("Read B1.")
