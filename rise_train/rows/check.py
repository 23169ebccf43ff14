"""The pre-flight check: proofs about the very token ids that training will see. A violation stops the run.

For each row: every tool name, argument name and value of the calls is in the tokens that carry loss; every word of
the user and of the tools is in the tokens that do not; each assistant turn ends with a trained stop token; the prompt
is the one an inference server would build; nothing is cut; and a rejected answer differs from the chosen one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from eval.replies.one_call_a_turn import takes_parallel_calls
from rise_train.rows.budget import Budget
from rise_train.rows.encoding import (
    Job,
    Made,
    Record,
    Stage,
    Table,
    cached,
    collect,
    conversations_of,
    encode,
    jobs_of,
    place,
)  # fmt: skip
from rise_train.rows.groups import Group, Pair, select_pairs
from rise_train.rows.masking import Encoded
from rise_train.rows.recipe_rows import Part, hash_parts, load_rows
from rise_train.rows.tokenizer_hash import hash_encoding
from synthesis.errors import UserError
from synthesis.seeds import digest

Row = dict[str, Any]
OnOverlong = Literal["error", "drop"]
T = TypeVar("T")


class Built(Sequence[T]):
    """Objects made from records as they are asked for, so that they need not all be in memory."""

    def __init__(self, records: Any, build: Callable[[Record], T]) -> None:
        self.records, self.build = records, build

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self.build(self.records[at])


@dataclass
class CheckReport:
    """What the check saw. `encoded` (SFT) or `groups` (preference) are what training then uses."""

    stage: Stage
    records: Any = ()
    """Of what is trained on: a list, or a `datasets.Dataset` on disk (`encoding.Record`)."""
    rows: int = 0
    dropped: list[str] = field(default_factory=list)
    """Ids of rows that were too long."""
    longest: int = 0
    tokens: int = 0
    """Tokens of one pass over the data, prompts included; of a pair, both sequences."""
    target_tokens: int = 0
    """Tokens of them that carry loss."""
    lengths: list[int] = field(default_factory=list)
    """Of each record: tokens of the conversation, or of a group's prompt with its longest answer."""
    ids: list[str] = field(default_factory=list)
    """Of each record its row's id."""
    budget: Budget = field(default_factory=lambda: Budget(None))
    linear: int = 0
    """Turns with parallel calls that the template has no room for, made one after the other."""
    lost: int = 0
    """Pairs that fell away by that."""
    turn_by_turn: int = 0
    """Conversations that no one sequence serves (`masking.HistoryError`): each turn is a sequence of its own."""
    foreign: int = 0
    """Calls to learn that their prompt's tools do not allow."""
    unsound: list[str] = field(default_factory=list)
    """Why rows were left out that fail a proof, with `on_unsound: drop`."""

    @property
    def encoded(self) -> Sequence[Encoded]:
        """The conversations, made as they are asked for."""
        return Built(self.records, lambda r: Encoded(r["input_ids"], [(start, end) for start, end in r["spans"]]))

    @property
    def groups(self) -> Sequence[Group]:
        """The groups, made as they are asked for."""
        return Built(self.records, lambda r: Group(r["prompt_ids"], r["chosen_ids"], r["rejected_ids"]))

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of all groups, in order."""
        return [pair for group in self.groups for pair in group.pairs]

    def summary(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        names = ("rows", "longest", "tokens", "target_tokens")
        extra = {n: getattr(self, n) for n in ("linear", "lost", "turn_by_turn", "foreign") if getattr(self, n)}
        extra |= {"unsound": len(self.unsound)} if self.unsound else {}
        return {"stage": self.stage, **{n: getattr(self, n) for n in names}, "dropped": len(self.dropped), **extra}

    def line(self) -> str:
        """The counts in one line, for people."""
        what = "conversations" if self.stage == "sft" else "pairs"
        share = 100 * self.target_tokens / max(1, self.tokens)
        notes = [
            (len(self.dropped), "dropped as too long"),
            (self.linear, "turns of parallel calls made one call at a time"),
            (self.lost, "pairs lost by that"),
            (self.turn_by_turn, "conversations trained turn by turn, as no one sequence serves them"),
            (self.foreign, "calls that their prompt's tools do not allow"),
            (len(self.unsound), f"rows left out as unsound (the first: {''.join(self.unsound[:1])})"),
        ]
        parts = [f"{self.rows} {what}, {self.tokens:,} tokens, {share:.1f} % carry loss, longest {self.longest}"]
        return "check passed: " + ", ".join(parts + [f"{count} {note}" for count, note in notes if count])


def check_sft(
    tokenizer: Any, rows: Iterable[Row], max_length: int | None, on_overlong: OnOverlong = "error"
) -> CheckReport:
    """Encode and prove SFT rows (`messages`, `tools`, `meta`). Raises `UserError` that shows the first bad row."""
    return report_of("sft", collect(encode(tokenizer, "sft", jobs_of(rows, {}))), max_length, on_overlong)


def check_preference(
    tokenizer: Any,
    rows: Iterable[Row],
    max_length: int | None,
    on_overlong: OnOverlong = "error",
    conversations: Mapping[str, list[Row]] | None = None,
) -> CheckReport:
    """Encode and prove preference groups (`prompt`, `chosen`, `rejected`, `tools`, `meta`); one pair for each rejected.

    A template with one call a turn wants the SFT rows' `conversations` (messages by sample id) too, where the results
    of parallel calls are. Raises `UserError` that shows the first bad row.
    """
    made = encode(tokenizer, "dpo", jobs_of(rows, conversations or {}))
    return report_of("dpo", collect(made), max_length, on_overlong)


def check_rows(
    stage: Stage, tokenizer: Any, data_args: Any, training_args: Any, part: Literal["train", "validation"] = "train"
) -> CheckReport:
    """Load the rows that a recipe trains on, or validates on, and check them; `UserError` on any violation.

    The rows are encoded once a machine: its first process does it, the others read what that left (`encoding.cached`).
    """
    chosen: Part = "all" if training_args.eval_strategy == "no" else part

    def make(jobs: Sequence[Job]) -> Iterator[Made]:
        return encode(tokenizer, stage, jobs, training_args.dataset_num_proc, data_args.on_unsound == "drop")

    key = _key(stage, tokenizer, data_args, training_args, chosen)
    with training_args.distributed_state.local_main_process_first():
        table = cached(key, stage, lambda: _jobs(stage, tokenizer, data_args, training_args, chosen), make)
    return report_of(stage, table, training_args.max_length, data_args.on_overlong)


def check_validation(stage: Stage, tokenizer: Any, data_args: Any, training_args: Any) -> CheckReport | None:
    """The rows that a recipe validates on, checked, and told; None where it does not validate."""
    if training_args.eval_strategy == "no":
        return None
    report = check_rows(stage, tokenizer, data_args, training_args, "validation")
    what = f"{report.rows} {'conversations' if stage == 'sft' else 'pairs'}"
    print(f"{stage}: validates on {what}, {report.tokens:,} tokens, that are not trained on", flush=True)
    return report


def _jobs(stage: Stage, tokenizer: Any, data_args: Any, training_args: Any, part: Part) -> list[Job]:
    rows = load_rows(data_args, stage, part, training_args.seed)
    if stage == "sft":
        return jobs_of(rows, {})
    limit = data_args.max_pairs if part != "validation" else None
    rows = select_pairs(rows, data_args.pairs_per_group, limit, training_args.seed, whole=data_args.grouped)
    if not _wants_conversations(tokenizer, data_args):
        return jobs_of(rows, {})
    return jobs_of(rows, conversations_of(load_rows(data_args, "sft", part, training_args.seed)))


def _wants_conversations(tokenizer: Any, data_args: Any) -> bool:
    """Whether preference groups are encoded with the results that stand in the SFT rows beside them."""
    return not takes_parallel_calls(tokenizer) and (Path(data_args.dataset_name) / "sft").is_dir()


def _key(stage: Stage, tokenizer: Any, data_args: Any, training_args: Any, part: Part) -> str:
    """All that the records of a recipe's data follow from."""
    tables = ["sft"] if stage == "sft" else ["preference"]
    if stage == "dpo" and _wants_conversations(tokenizer, data_args):
        tables.append("sft")
    data = [hash_parts(data_args, table, part != "all") for table in tables]
    chosen = [data_args.difficulty, part, data_args.dataset_eval_split, training_args.seed, data_args.on_unsound]
    if stage == "dpo":
        chosen += [data_args.negatives, data_args.pairs_per_group, data_args.max_pairs, data_args.grouped]
    return digest(stage, data, chosen, hash_encoding(tokenizer))


def report_of(stage: Stage, table: Table, max_length: int | None, on_overlong: OnOverlong) -> CheckReport:
    """What `max_length` keeps of the records, with the counts. Raises `UserError` where nothing may be left out."""
    report = CheckReport(
        stage,
        budget=Budget(max_length),
        linear=table.linear,
        lost=table.lost,
        turn_by_turn=table.parted,
        foreign=table.foreign,
        unsound=table.unsound,
    )
    kept, overlong = (_count_conversations if stage == "sft" else _count_groups)(report, table.records)
    report.records = table.records if len(kept) == len(table.records) else _select(table.records, kept)
    if overlong and on_overlong == "error":
        raise UserError(f"{overlong[0]}; {report.budget.line()}; raise it, or set on_overlong: drop")
    if report.rows == 0:
        gone = [f"{len(report.dropped)} were longer than max_length {report.budget.max_length}"] * bool(report.dropped)
        gone += [f"{len(report.unsound)} failed a proof, the first: {report.unsound[0]}"] if report.unsound else []
        gone += [f"{report.lost} pairs fell away where a template of one call a turn parts them"] * bool(report.lost)
        raise UserError(f"no row is left to train on ({', '.join(gone) or 'there was none'})")
    return report


def _select(records: Any, kept: list[int]) -> Any:
    return records.select(kept) if hasattr(records, "select") else [records[i] for i in kept]


def _facts(records: Any, *names: str) -> Iterable[Record]:
    """The records with these columns alone, so that no token ids are read."""
    found: Iterable[Record] = records.select_columns(list(names)) if hasattr(records, "select_columns") else records
    return found


def _count_conversations(report: CheckReport, records: Any) -> tuple[list[int], list[str]]:
    """Count what fits; returns which records stay, and a sentence for each row that does not fit."""
    by_row: dict[int, dict[int, Record]] = {}
    for at, record in enumerate(_facts(records, "row", "id", "length", "spans")):
        by_row.setdefault(record["row"], {})[at] = record
    kept, overlong = list[int](), list[str]()
    for number, parts in by_row.items():
        first = next(iter(parts.values()))
        answers = [end - start for part in parts.values() for start, end in part["spans"]]
        lengths = [part["length"] for part in parts.values()]
        report.budget.prompts.append(first["spans"][0][0])
        report.budget.answers += answers
        if not _fits(report, place("sft", number, first["id"]), first["id"], max(lengths), overlong):
            continue
        kept += parts
        report.lengths += lengths
        report.ids += len(parts) * [first["id"]]
        report.rows += 1
        report.tokens += sum(lengths)
        report.target_tokens += sum(answers)
    return kept, overlong


def _count_groups(report: CheckReport, records: Any) -> tuple[list[int], list[str]]:
    kept, overlong = list[int](), list[str]()
    for at, record in enumerate(_facts(records, "row", "id", "lengths", "agree", "differ")):
        prompt, chosen, *wrong = record["lengths"]
        report.budget.prompts.append(prompt)
        report.budget.answers += [chosen, *wrong]
        report.budget.agree += record["agree"]
        report.budget.differ += record["differ"]
        length, where = prompt + max(chosen, *wrong), place("preference", record["row"], record["id"])
        if not _fits(report, where, record["id"], length, overlong):
            continue
        kept.append(at)
        report.lengths.append(length)
        report.ids.append(record["id"])
        report.rows += len(wrong)
        report.target_tokens += sum(chosen + other for other in wrong)
        report.tokens += sum(2 * prompt + chosen + other for other in wrong)
    return kept, overlong


def _fits(report: CheckReport, where: str, id_: str, length: int, overlong: list[str]) -> bool:
    """Whether the row stays; nothing is ever cut, so a row that fits keeps its first difference and its stop token."""
    report.budget.rows.append(length)
    limit = report.budget.max_length
    if limit is not None and length > limit:
        overlong.append(f"{where}: {length} tokens do not fit into max_length {limit}")
        report.dropped.append(id_)
        return False
    report.longest = max(report.longest, length)
    return True
