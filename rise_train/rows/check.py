"""The pre-flight check: proofs about the very token ids that training will see. A violation stops the run.

For each row: every tool name, argument name and value of the calls is in the tokens that carry loss; every word of
the user and of the tools is in the tokens that do not; each assistant turn ends with a trained stop token; the prompt
is the one an inference server would build; nothing is cut; and a rejected answer differs from the chosen one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eval.replies.calls import object_arguments
from eval.replies.linear import MARK, linear_groups, linear_row, takes_parallel_calls
from rise_train.rows.budget import Budget
from rise_train.rows.groups import Group, Pair, differing, select_pairs
from rise_train.rows.masking import (
    Encoded,
    HistoryError,
    encode_answer,
    encode_conversation,
    encode_each_turn,
    encode_turn,
)
from rise_train.rows.row_proofs import (
    Reader,
    prove_answer,
    prove_conversation,
    prove_no_control,
    prove_untrained,
    reader_of,
)
from synthesis.errors import UserError

Row = dict[str, Any]
Conversations = Mapping[str, list[Row]]
"""Messages of the SFT rows, by sample id."""
OnOverlong = Literal["error", "drop"]


@dataclass
class CheckReport:
    """What the check saw. `encoded` (SFT) or `groups` (preference) are what training then uses."""

    stage: Literal["sft", "dpo"]
    rows: int = 0
    dropped: list[str] = field(default_factory=list)
    """Ids of rows that were too long."""
    longest: int = 0
    tokens: int = 0
    """Tokens of one pass over the data, prompts included; of a pair, both sequences."""
    target_tokens: int = 0
    """Tokens of them that carry loss."""
    encoded: list[Encoded] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    """Of each entry of `encoded` or `groups` its row's id."""
    budget: Budget = field(default_factory=lambda: Budget(None))
    linear: int = 0
    """Turns with parallel calls that the template has no room for, made one after the other."""
    lost: int = 0
    """Pairs that fell away by that."""
    turn_by_turn: int = 0
    """Conversations that no one sequence serves (`masking.HistoryError`): each turn is a sequence of its own."""

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of all groups, in order."""
        return [pair for group in self.groups for pair in group.pairs]

    def summary(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        names = ("rows", "longest", "tokens", "target_tokens")
        extra = {n: getattr(self, n) for n in ("linear", "lost", "turn_by_turn") if getattr(self, n)}
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
        ]
        parts = [f"{self.rows} {what}, {self.tokens:,} tokens, {share:.1f} % carry loss, longest {self.longest}"]
        return "check passed: " + ", ".join(parts + [f"{count} {note}" for count, note in notes if count])


def check_sft(
    tokenizer: Any, rows: Iterable[Row], max_length: int | None, on_overlong: OnOverlong = "error"
) -> CheckReport:
    """Encode and prove SFT rows (`messages`, `tools`, `meta`). Raises `UserError` that shows the first bad row."""
    report = CheckReport("sft", budget=Budget(max_length))
    reader, parallel = reader_of(tokenizer), takes_parallel_calls(tokenizer)
    overlong: list[str] = []
    for number, row in enumerate(rows):
        with _Naming("sft", number, row) as where:
            row = {**row, "messages": _objects(row["messages"])}
            row = row if parallel else linear_row(row)
            parts = _encode_row(tokenizer, row, reader)
            report.budget.prompts.append(parts[0].spans[0][0])
            report.budget.answers += [end - start for part in parts for start, end in part.spans]
            if not _fits(report, row, max(len(part.input_ids) for part in parts), where, overlong):
                continue
        report.encoded += parts
        report.ids += len(parts) * [_id(row)]
        report.rows += 1
        report.linear += row["meta"].get(MARK, 0)
        report.turn_by_turn += len(parts) > 1
        report.tokens += sum(len(part.input_ids) for part in parts)
        report.target_tokens += sum(end - start for part in parts for start, end in part.spans)
    return _finished(report, overlong, on_overlong)


def check_preference(
    tokenizer: Any,
    rows: Iterable[Row],
    max_length: int | None,
    on_overlong: OnOverlong = "error",
    conversations: Conversations | None = None,
) -> CheckReport:
    """Encode and prove preference groups (`prompt`, `chosen`, `rejected`, `tools`, `meta`); one pair for each rejected.

    A template with one call a turn wants the SFT rows' `conversations` too, where the results of parallel calls are.
    Raises `UserError` that shows the first bad row.
    """
    report = CheckReport("dpo", budget=Budget(max_length))
    reader, parallel = reader_of(tokenizer), takes_parallel_calls(tokenizer)
    overlong: list[str] = []
    for number, row in enumerate(rows):
        with _Naming("preference", number, row) as where:
            row = _one_turns(row)
            parts = [row] if parallel else _linear(report, row, conversations or {})
            for part in parts:
                group = _encode_group(tokenizer, part, reader)
                _measure(report.budget, group)
                if _fits(report, part, max(p.length for p in group.pairs), where, overlong):
                    _take(report, part, group)
    return _finished(report, overlong, on_overlong)


def check_rows(stage: Literal["sft", "dpo"], tokenizer: Any, data_args: Any, training_args: Any) -> CheckReport:
    """Load the rows that a recipe trains on and check them. Raises `UserError` on any violation."""
    from rise_train.rows.reading import load_rows

    rows = load_rows(data_args, stage)
    if stage == "sft":
        return check_sft(tokenizer, rows, training_args.max_length, data_args.on_overlong)
    rows = select_pairs(
        rows, data_args.pairs_per_group, data_args.max_pairs, training_args.seed, whole=data_args.grouped
    )
    known = {} if takes_parallel_calls(tokenizer) else _conversations(data_args)
    return check_preference(tokenizer, rows, training_args.max_length, data_args.on_overlong, known)


class _Naming:
    """Adds the row to a violation, so that the one sentence says where to look."""

    def __init__(self, table: str, number: int, row: Row) -> None:
        self.where = f"{table} row {number} (id {_id(row)})"

    def __enter__(self) -> str:
        return self.where

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            raise UserError(f"{self.where}: {error}") from error


def _id(row: Row) -> str:
    return str(row["meta"].get("id", "?"))


def _conversations(data_args: Any) -> Conversations:
    """The messages of the SFT rows beside the preference groups, where the dataset has them."""
    from rise_train.rows.reading import load_rows

    if not (Path(data_args.dataset_name) / "sft").is_dir():
        return {}
    return {_id(row): _objects(row["messages"]) for row in load_rows(data_args, "sft")}


def _encode_row(tokenizer: Any, row: Row, reader: Reader | None) -> list[Encoded]:
    """An SFT row as one proven sequence, or one for each turn where the template rewrites history."""
    try:
        whole = encode_conversation(tokenizer, row["messages"], row["tools"])
    except HistoryError:
        ends = [i + 1 for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]
        parts = encode_each_turn(tokenizer, row["messages"], row["tools"])
        for end, part in zip(ends, parts, strict=True):
            prove_conversation(tokenizer, {**row, "messages": row["messages"][:end]}, part, reader)
        return parts
    prove_conversation(tokenizer, row, whole, reader)
    return [whole]


def _linear(report: CheckReport, row: Row, conversations: Conversations) -> Iterator[Row]:
    parts, lost = linear_groups(row, conversations.get(row["meta"].get("sample_id", "")))
    report.linear += any(MARK in part["meta"] for part in parts) or bool(lost)
    report.lost += lost
    return iter(parts)


def _encode_group(tokenizer: Any, row: Row, reader: Reader | None) -> Group:
    prompt_ids, chosen_ids = encode_turn(tokenizer, row["prompt"], row["chosen"][0], row["tools"])
    prove_answer(tokenizer, row["chosen"][0], prompt_ids, chosen_ids, row["tools"], reader)
    prove_untrained(tokenizer, row["prompt"], prompt_ids)
    prove_no_control(tokenizer, [*row["prompt"], *row["chosen"]])
    wrong = []
    for rejected in row["rejected"]:
        rejected_ids = encode_answer(tokenizer, row["prompt"], prompt_ids, rejected[0], row["tools"])
        prove_answer(tokenizer, rejected[0], prompt_ids, rejected_ids, row["tools"], reader)
        prove_no_control(tokenizer, rejected)
        if rejected_ids == chosen_ids:
            raise UserError(
                f"a rejected answer has the same tokens as the chosen one: {tokenizer.decode(chosen_ids)!r}"
            )
        wrong.append(rejected_ids)
    return Group(prompt_ids, chosen_ids, wrong)


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


def _measure(budget: Budget, group: Group) -> None:
    """Lengths, and where the answers of each pair first differ."""
    budget.prompts.append(len(group.prompt_ids))
    budget.answers += [len(ids) for ids in (group.chosen_ids, *group.rejected_ids)]
    for rejected in group.rejected_ids:
        right, _ = differing(group.chosen_ids, rejected)
        budget.agree.append(right.start)
        budget.differ.append(len(right))


def _take(report: CheckReport, row: Row, group: Group) -> None:
    report.groups.append(group)
    report.ids.append(_id(row))
    report.rows += len(group.pairs)
    for p in group.pairs:
        report.target_tokens += len(p.chosen_ids) + len(p.rejected_ids)
        report.tokens += 2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids)


def _fits(report: CheckReport, row: Row, length: int, where: str, overlong: list[str]) -> bool:
    """Whether the row stays; nothing is ever cut, so a row that fits keeps its first difference and its stop token."""
    report.budget.rows.append(length)
    limit = report.budget.max_length
    if limit is not None and length > limit:
        overlong.append(f"{where}: {length} tokens do not fit into max_length {limit}")
        report.dropped.append(_id(row))
        return False
    report.longest = max(report.longest, length)
    return True


def _finished(report: CheckReport, overlong: list[str], on_overlong: OnOverlong) -> CheckReport:
    if overlong and on_overlong == "error":
        raise UserError(f"{overlong[0]}; {report.budget.line()}; raise it, or set on_overlong: drop")
    if report.rows == 0:
        gone = [f"{len(report.dropped)} were longer than max_length {report.budget.max_length}"] * bool(report.dropped)
        gone += [f"{report.lost} pairs fell away where a template of one call a turn parts them"] * bool(report.lost)
        raise UserError(f"no row is left to train on ({', '.join(gone) or 'there was none'})")
    return report
