"""The journal of one stage: append-only JSON lines that survive `kill -9`, and from which the stage resumes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from synthesis.errors import UserError

RecordT = TypeVar("RecordT", bound=BaseModel)


class Journal(Generic[RecordT]):
    """An append-only file of records, one line of JSON each, keyed by `id`, or by what `key` makes of a record.

    Opening it reads what is there. A last line without a newline is what `kill -9` leaves of a record that was being
    written: it is dropped, so the stage makes that record again. Every record is flushed to the operating system before
    `append` returns, so a killed process loses at most the record in hand.

    Raises `UserError` when a complete line does not parse as `record_type`: the file was edited, or another version
    wrote it.
    """

    def __init__(self, path: Path, record_type: type[RecordT], key: Callable[[RecordT], str] | None = None) -> None:
        self.path = path
        self._type = record_type
        self._key = key or _id
        self._records: dict[str, RecordT] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._load()
        self._file = path.open("a", encoding="utf-8")

    def _load(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(self.path, complete)
        for number, line in enumerate(content[:complete].split(b"\n")[:-1], start=1):
            self._add(self._parse(line, number))

    def _parse(self, line: bytes, number: int) -> RecordT:
        try:
            return self._type.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "line"
            raise UserError(
                f"{self.path}, line {number}, {field}: expected a {self._type.__name__} record ({first['msg']}); "
                "start over with --fresh."
            ) from error

    def _add(self, record: RecordT) -> None:
        self._records[self._key(record)] = record

    def append(self, record: RecordT) -> None:
        """Write `record` and flush it. A record whose id is there already is a mistake of the caller: `ValueError`."""
        if self._key(record) in self._records:
            raise ValueError(f"{self.path}: record {self._key(record)} was written before")
        self._file.write(record.model_dump_json() + "\n")
        self._file.flush()
        self._add(record)

    def get(self, record_id: str) -> RecordT | None:
        """The record with this id, or None."""
        return self._records.get(record_id)

    @property
    def ids(self) -> frozenset[str]:
        """Ids of all records written so far."""
        return frozenset(self._records)

    def __contains__(self, record_id: str) -> bool:
        return record_id in self._records

    def __iter__(self) -> Iterator[RecordT]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Close the file; the records stay readable."""
        self._file.close()

    def __enter__(self) -> "Journal[RecordT]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _id(record: BaseModel) -> str:
    return str(record.id)  # type: ignore[attr-defined]
