"""Rows as token ids, each proved on its own: in this process or in several, and once a machine.

What comes of a row is a record of plain numbers. The records of a recipe's data are kept in Arrow files in the cache of
`datasets`, under a key made of all that they follow from, and are read from there without being loaded: by the other
processes of the machine, and by the next run.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eval.replies.calls import Toolbox, calls_of, object_arguments
from eval.replies.one_call_a_turn import MARK, linear_groups, linear_row, takes_parallel_calls
from rise_train.rows.groups import differing
from rise_train.rows.masking import (
    Encoded,
    HistoryError,
    encode_answer,
    encode_conversation,
    encode_each_turn,
    encode_turn,
)
from rise_train.rows.row_proofs import (
    prove_answer,
    prove_conversation,
    prove_no_control,
    prove_untrained,
    reader_of,
)
from synthesis.errors import UserError
from synthesis.json_file import write_json
from synthesis.progress import stage as progress_of

Row = dict[str, Any]
Stage = Literal["sft", "dpo"]
Record = dict[str, Any]
"""Of a conversation, or of one of its turns: `row` and `id` of the dataset's row, `input_ids`, `labels`, `spans`,
`length`. Of a group: `row`, `id`, `prompt_ids`, `chosen_ids`, `rejected_ids`; `lengths` of all three; for each pair
`agree`, tokens before the first that differs, and `differ`, from there to the last."""
FEW = 2000
"""Rows that one process encodes about as fast as another one starts."""
CHUNK = 64
"""Rows that a process is handed at a time."""
BATCH = 1000
"""Records of an Arrow batch."""


class Made(NamedTuple):
    """What came of one row."""

    records: list[Record]
    linear: int = 0
    """Turns with parallel calls that the template has no room for, made one after the other."""
    lost: int = 0
    """Pairs that fell away by that."""
    parted: int = 0
    """1 if no one sequence serves the conversation (`masking.HistoryError`), so that each turn has its own."""
    foreign: int = 0
    """Right calls that the prompt's tools do not allow: of a tool that is not offered, or against its schema."""
    unsound: tuple[str, ...] = ()
    """Why the row is left out; empty where it is not."""


class Job(NamedTuple):
    """One row of the dataset, and where its results are if a template with one call a turn needs them."""

    number: int
    row: Row
    conversation: list[Row] | None = None


class Encoder:
    """Encodes and proves rows of one stage with one tokenizer.

    Raises `UserError` that names the row where a proof fails, or with `drop` leaves the row out and says so.
    """

    def __init__(self, tokenizer: Any, stage: Stage, drop: bool = False) -> None:
        self.tokenizer, self.drop = tokenizer, drop
        self.encode = self._conversation if stage == "sft" else self._group
        self.table = "sft" if stage == "sft" else "preference"
        self.reader, self.parallel = reader_of(tokenizer), takes_parallel_calls(tokenizer)

    def __call__(self, job: Job) -> Made:
        """The records of a row."""
        try:
            return self.encode(job)._replace(foreign=_foreign(job.row))
        except UserError as error:
            sentence = f"{place(self.table, job.number, id_of(job.row))}: {error}"
            if self.drop:
                return Made([], unsound=(sentence,))
            raise UserError(f"{sentence} (on_unsound: drop leaves such rows out)") from error

    def _conversation(self, job: Job) -> Made:
        row = {**job.row, "messages": _objects(job.row["messages"])}
        row = row if self.parallel else linear_row(row)
        parts = self._sequences(row)
        keys = {"row": job.number, "id": id_of(row)}
        return Made(
            [{**keys, **_numbers(part)} for part in parts], linear=row["meta"].get(MARK, 0), parted=int(len(parts) > 1)
        )

    def _sequences(self, row: Row) -> list[Encoded]:
        """A conversation as one proven sequence, or one for each turn where the template rewrites history."""
        try:
            whole = encode_conversation(self.tokenizer, row["messages"], row["tools"])
        except HistoryError:
            ends = [i + 1 for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]
            parts = encode_each_turn(self.tokenizer, row["messages"], row["tools"])
            for end, part in zip(ends, parts, strict=True):
                prove_conversation(self.tokenizer, {**row, "messages": row["messages"][:end]}, part, self.reader)
            return parts
        prove_conversation(self.tokenizer, row, whole, self.reader)
        return [whole]

    def _group(self, job: Job) -> Made:
        row, parts, lost = _one_turns(job.row), [], 0
        parts = [row]
        if not self.parallel:
            parts, lost = linear_groups(row, job.conversation)
        linear = any(MARK in part["meta"] for part in parts) or bool(lost)
        return Made([self._answers(job.number, part) for part in parts], int(linear), lost)

    def _answers(self, number: int, row: Row) -> Record:
        tokenizer, tools = self.tokenizer, row["tools"]
        prompt, chosen = encode_turn(tokenizer, row["prompt"], row["chosen"][0], tools)
        prove_answer(tokenizer, row["chosen"][0], prompt, chosen, tools, self.reader)
        prove_untrained(tokenizer, row["prompt"], prompt)
        prove_no_control(tokenizer, [*row["prompt"], *row["chosen"]])
        wrong = [self._wrong(row, prompt, chosen, rejected) for rejected in row["rejected"]]
        places = [differing(chosen, rejected)[0] for rejected in wrong]
        return {
            "row": number,
            "id": id_of(row),
            "prompt_ids": prompt,
            "chosen_ids": chosen,
            "rejected_ids": wrong,
            "lengths": [len(prompt), len(chosen), *map(len, wrong)],
            "agree": [right.start for right in places],
            "differ": [len(right) for right in places],
        }

    def _wrong(self, row: Row, prompt: list[int], chosen: list[int], rejected: list[Row]) -> list[int]:
        ids = encode_answer(self.tokenizer, row["prompt"], prompt, rejected[0], row["tools"])
        prove_answer(self.tokenizer, rejected[0], prompt, ids, row["tools"], self.reader)
        prove_no_control(self.tokenizer, rejected)
        if ids == chosen:
            text = self.tokenizer.decode(chosen)
            raise UserError(f"a rejected answer has the same tokens as the chosen one: {text!r}")
        return ids


def _foreign(row: Row) -> int:
    """How many of the calls to learn the row's own tools do not allow."""
    tools = Toolbox(row["tools"])
    messages = row["messages"] if "messages" in row else row["chosen"]
    return sum(not tools.valid(call) for message in messages for call in calls_of(message))


def _numbers(part: Encoded) -> Record:
    ids, spans = part.input_ids, [list(span) for span in part.spans]
    return {"input_ids": ids, "labels": part.labels, "spans": spans, "length": len(ids)}


def place(table: str, number: int, id_: str) -> str:
    """A row of the dataset, for people."""
    return f"{table} row {number} (id {id_})"


def id_of(row: Row) -> str:
    """The id in a row's `meta`."""
    return str(row["meta"].get("id", "?"))


def conversations_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Messages of SFT rows, by sample id."""
    return {id_of(row): _objects(row["messages"]) for row in rows}


def jobs_of(rows: Iterable[Row], conversations: Mapping[str, list[Row]]) -> list[Job]:
    """The rows as jobs, each with its sample's conversation where there is one."""
    return [Job(n, row, conversations.get(row["meta"].get("sample_id", ""))) for n, row in enumerate(rows)]


def encode(
    tokenizer: Any, stage: Stage, jobs: Sequence[Job], processes: int | None = 1, drop: bool = False
) -> Iterator[Made]:
    """What comes of each row, in order; None for as many processes as are worth their start.

    Raises `UserError` that names the first bad row, unless such rows are to `drop`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processes is not None and processes < 1:
        raise UserError(f"dataset_num_proc: expected 1 or more, found {processes}")
    processes = processes or max(1, min(cores, len(jobs) // FEW))
    if processes == 1:
        yield from map(Encoder(tokenizer, stage, drop), jobs)
        return
    rest = iter(jobs)
    chunks = iter(lambda: list(islice(rest, CHUNK)), [])
    context = get_context("spawn")  # a fork would inherit the threads of torch and tokenizers in the middle of a lock
    try:
        with ProcessPoolExecutor(processes, context, _start, (tokenizer, stage, drop)) as pool:
            for made in pool.map(_encode_chunk, chunks):
                yield from made
    except BrokenProcessPool as error:
        raise UserError(
            "dataset_num_proc: a process that encodes rows was killed, most likely for memory; set a smaller number"
        ) from error


_encoder: Encoder | None = None
"""Of a worker process."""


def _start(tokenizer: Any, stage: Stage, drop: bool) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(tokenizer, stage, drop)


def _encode_chunk(jobs: list[Job]) -> list[Made]:
    assert _encoder is not None
    return [_encoder(job) for job in jobs]


class Table(NamedTuple):
    """The records of a recipe's data, as a list or a memory-mapped `datasets.Dataset`, and the counts of all rows."""

    records: Any
    linear: int
    lost: int
    parted: int
    foreign: int
    unsound: list[str]


def collect(made: Iterable[Made]) -> Table:
    """The table in memory."""
    found = list(made)
    records = [record for one in found for record in one.records]
    return Table(records, **_totals(found))


def _totals(found: Sequence[Made]) -> dict[str, Any]:
    """The counts of a table."""
    numbers = {name: sum(getattr(made, name) for made in found) for name in ("linear", "lost", "parted", "foreign")}
    return {**numbers, "unsound": [sentence for made in found for sentence in made.unsound]}


def cached(
    key: str, stage: Stage, jobs: Callable[[], Sequence[Job]], make: Callable[[Sequence[Job]], Iterator[Made]]
) -> Table:
    """The table of this key from the cache; made and put there first where it is not.

    It appears all at once: a killed process leaves none, and of two that make the same one wins. Shows progress.
    """
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE) / "rise_train" / key
    if (found := _read(folder)) is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # damaged, if it is there
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise UserError(f"HF_DATASETS_CACHE: {folder.parent} cannot be written ({error.strerror})") from error
    try:
        wanted = jobs()
        with progress_of(f"{stage}: encode") as report:
            _write(part, stage, make(wanted), lambda done: report(done, len(wanted), ""))
    except (Exception, KeyboardInterrupt):
        shutil.rmtree(part)
        raise
    try:
        part.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(part)
    made = _read(folder)
    assert made is not None
    return made


def _read(folder: Path) -> Table | None:
    """The table in a folder of the cache; None where there is none that is whole."""
    import datasets
    import pyarrow as pa

    try:
        counts = json.loads((folder / "counts.json").read_text())
        records = datasets.Dataset.from_file(str(folder / "records.arrow"))
    except (OSError, ValueError, pa.ArrowInvalid):
        return None
    return Table(records, **counts) if len(records) == counts.pop("records") else None


def _write(folder: Path, stage: Stage, made: Iterator[Made], report: Callable[[int], None]) -> None:
    import pyarrow as pa

    ids, nested = pa.list_(pa.int32()), pa.list_(pa.list_(pa.int32()))
    groups = {"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": nested, "lengths": ids, "agree": ids, "differ": ids}
    conversations = {"input_ids": ids, "labels": ids, "spans": nested, "length": pa.int32()}
    columns = conversations if stage == "sft" else groups
    schema = pa.schema({"row": pa.int64(), "id": pa.string(), **columns})
    bare, waiting, total = list[Made](), list[Record](), 0
    with pa.OSFile(str(folder / "records.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for done, one in enumerate(made, start=1):
            waiting += one.records
            total += len(one.records)
            bare.append(one._replace(records=[]))
            report(done)
            if len(waiting) >= BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(waiting, schema))
                waiting = []
        writer.write_batch(pa.RecordBatch.from_pylist(waiting, schema))
    write_json(folder / "counts.json", {**_totals(bare), "records": total})


def _one_turns(row: Row) -> Row:
    for side in (row["chosen"], *row["rejected"]):
        if len(side) != 1 or side[0]["role"] != "assistant":
            raise UserError("chosen and rejected must be one assistant message each (the decision turn)")
    sides = {"prompt": _objects(row["prompt"]), "chosen": _objects(row["chosen"])}
    return {**row, **sides, "rejected": [_objects(side) for side in row["rejected"]]}


def _objects(messages: list[Row]) -> list[Row]:
    try:
        return [object_arguments(message) for message in messages]
    except ValueError as error:
        raise UserError(f"a call of an assistant message cannot be read: {error}") from error
