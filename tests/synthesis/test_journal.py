"""The journal: what was written stays, what was half written goes."""

from pathlib import Path

import pytest

from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.records import Negative


def negative(key: str) -> Negative:
    return Negative(id=key, sample_id="s", turn=0, kind="antonym", mutations=[], score=0.5, primitive_ids=["p"])


def test_append_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "negatives.jsonl"
    with Journal(path, Negative) as journal:
        journal.append(negative("a"))
        journal.append(negative("b"))
    with Journal(path, Negative) as again:
        assert list(again) == [negative("a"), negative("b")]
        assert again.ids == {"a", "b"}
        assert "a" in again
        assert again.get("b") == negative("b")
        assert again.get("c") is None
        assert len(again) == 2


def test_a_truncated_last_line_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, Negative) as journal:
        for key in "abc":
            journal.append(negative(key))
    whole = path.read_bytes()
    start_of_last = whole[:-1].rfind(b"\n") + 1
    for cut in range(start_of_last, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path, Negative) as journal:
            assert journal.ids == {"a", "b"}, cut
            journal.append(negative("c"))
        assert path.read_bytes() == whole


def test_each_record_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", Negative)
    journal.append(negative("a"))
    assert (tmp_path / "j.jsonl").read_bytes().endswith(b"\n")
    journal.close()


def test_text_with_separators_of_lines_stays_one_record(tmp_path: Path) -> None:
    odd = negative("a").model_copy(update={"sample_id": "one\ntwo\r\u2028three\x85four"})
    with Journal(tmp_path / "j.jsonl", Negative) as journal:
        journal.append(odd)
    with Journal(tmp_path / "j.jsonl", Negative) as journal:
        assert list(journal) == [odd]


def test_a_broken_complete_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(negative("a").model_dump_json() + '\n{"id": "b"}\n')
    with pytest.raises(UserError, match=r"j\.jsonl, line 2, sample_id: expected a Negative record"):
        Journal(path, Negative)


def test_the_same_id_twice_is_a_mistake(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl", Negative) as journal:
        journal.append(negative("a"))
        with pytest.raises(ValueError, match="written before"):
            journal.append(negative("a"))
