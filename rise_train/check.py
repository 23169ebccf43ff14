"""The pre-flight check: proofs about the very token ids that training will see. A violation stops the run.

For each row: every tool name, argument name and value of the calls is in the tokens that carry loss; every word of
the user and of the tools is in the tokens that do not; each assistant turn ends with a trained stop token; the prompt
is the one an inference server would build; nothing is cut; and a rejected answer differs from the chosen one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rise_train.masking import Encoded, encode_conversation, encode_turn
from rise_train.proofs import prove_calls, prove_conversation, prove_no_control, prove_untrained
from synthesis.errors import UserError
from synthesis.seeds import seeded

Row = dict[str, Any]
OnOverlong = Literal["error", "drop"]


@dataclass(frozen=True)
class Pair:
    """One preference pair as token ids; both answers begin right after the prompt and end with the stop token."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of its two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass(frozen=True)
class Group:
    """One prompt, its right answer and its wrong ones (at least one), as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[list[int]]

    @property
    def pairs(self) -> list[Pair]:
        """The right answer against each wrong one."""
        return [Pair(self.prompt_ids, self.chosen_ids, rejected) for rejected in self.rejected_ids]


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

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of all groups, in order."""
        return [pair for group in self.groups for pair in group.pairs]

    def summary(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        names = ("rows", "longest", "tokens", "target_tokens")
        return {"stage": self.stage, **{n: getattr(self, n) for n in names}, "dropped": len(self.dropped)}

    def line(self) -> str:
        """The counts in one line, for people."""
        what = "conversations" if self.stage == "sft" else "pairs"
        share = 100 * self.target_tokens / max(1, self.tokens)
        dropped = f", {len(self.dropped)} dropped as too long" if self.dropped else ""
        return (
            f"check passed: {self.rows} {what}, {self.tokens:,} tokens, {share:.1f} % carry loss, "
            f"longest {self.longest}{dropped}"
        )


def check_sft(
    tokenizer: Any, rows: Iterable[Row], max_length: int | None, on_overlong: OnOverlong = "error"
) -> CheckReport:
    """Encode and prove SFT rows (`messages`, `tools`, `meta`). Raises `UserError` that shows the first bad row."""
    report = CheckReport("sft")
    for number, row in enumerate(rows):
        with _Naming("sft", number, row):
            encoded = encode_conversation(tokenizer, row["messages"], row["tools"])
            prove_conversation(tokenizer, row, encoded)
            if not _fits(report, row, len(encoded.input_ids), max_length, on_overlong):
                continue
        report.encoded.append(encoded)
        report.rows += 1
        report.tokens += len(encoded.input_ids)
        report.target_tokens += sum(end - start for start, end in encoded.spans)
    return _not_empty(report, max_length)


def check_preference(
    tokenizer: Any, rows: Iterable[Row], max_length: int | None, on_overlong: OnOverlong = "error"
) -> CheckReport:
    """Encode and prove preference groups (`prompt`, `chosen`, `rejected`, `tools`, `meta`); one pair for each rejected.

    Raises `UserError` that shows the first bad row.
    """
    report = CheckReport("dpo")
    for number, row in enumerate(rows):
        with _Naming("preference", number, row):
            group = _encode_group(tokenizer, row)
            if not _fits(report, row, max(p.length for p in group.pairs), max_length, on_overlong):
                continue
        report.groups.append(group)
        report.rows += len(group.pairs)
        for p in group.pairs:
            report.target_tokens += len(p.chosen_ids) + len(p.rejected_ids)
            report.tokens += 2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids)
    return _not_empty(report, max_length)


def select_pairs(rows: Iterable[Row], per_group: int, limit: int | None, seed: int, whole: bool = False) -> list[Row]:
    """The groups cut down to the pairs that training takes, the same at every call.

    Which negatives of a group come first is drawn by `seed` and the group's id. Every group gives its first one before
    any gives a second, so that a small `limit` still sees many requests; with `whole`, where a group's further pairs
    cost little, a group that gives one gives all, up to `per_group`.
    """
    groups = list(rows)
    orders = [
        seeded(seed, "pairs", g["meta"]["id"]).sample(range(len(g["rejected"])), len(g["rejected"])) for g in groups
    ]
    turns = seeded(seed, "groups").sample(range(len(groups)), len(groups))
    picks = [(g, order) for rank in range(per_group) for g in turns for order in orders[g][rank : rank + 1]]
    if whole:
        picks = [(g, order) for g in turns for order in orders[g][:per_group]]
    chosen: dict[int, list[int]] = {}
    for g, k in picks[:limit]:
        chosen.setdefault(g, []).append(k)
    return [{**groups[g], "rejected": [groups[g]["rejected"][k] for k in ks]} for g, ks in sorted(chosen.items())]


def check_config(
    path: Path, overrides: list[str] | None = None, show: Callable[[Any], None] | None = None
) -> CheckReport:
    """`rise check CONFIG.yaml`: run the check of the recipe's own stage on its own model and dataset, without training.

    `show` receives rich renderables, the line of counts and one row in colour; by default they go to the terminal.
    Raises `UserError` on any violation.
    """
    from rich.console import Console

    from rise_train.config import parse, stage_of
    from rise_train.models import load_rows, load_tokenizer

    stage = stage_of(path)
    data, training, model = parse(stage, ["--config", str(path), *(overrides or [])])
    tokenizer = load_tokenizer(model, training)
    rows = load_rows(data, stage)
    if stage == "sft":
        report = check_sft(tokenizer, rows, training.max_length, data.on_overlong)
    else:
        rows = select_pairs(rows, data.pairs_per_group, data.max_pairs, training.seed, whole=data.grouped)
        report = check_preference(tokenizer, rows, training.max_length, data.on_overlong)
    show = show or Console().print
    show(report.line())
    show(paint(tokenizer, report))
    return report


def paint(tokenizer: Any, report: CheckReport) -> Any:
    """One row as rich text: what carries loss in bold green, the rest dim; of a pair, the rejected answer in red."""
    from rich.text import Text

    text = Text()
    if report.encoded:
        encoded = report.encoded[0]
        last = 0
        for start, end in encoded.spans:
            text.append(tokenizer.decode(encoded.input_ids[last:start]), "dim")
            text.append(tokenizer.decode(encoded.input_ids[start:end]), "bold green")
            last = end
        text.append(tokenizer.decode(encoded.input_ids[last:]), "dim")
    elif report.groups:
        pair = report.groups[0].pairs[0]
        text.append(tokenizer.decode(pair.prompt_ids), "dim")
        text.append(tokenizer.decode(pair.chosen_ids), "bold green")
        text.append("\n" + tokenizer.decode(pair.rejected_ids), "red")
    return text


class _Naming:
    """Adds the row to a violation, so that the one sentence says where to look."""

    def __init__(self, table: str, number: int, row: Row) -> None:
        self.where = f"{table} row {number} (id {row['meta'].get('id', '?')})"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            raise UserError(f"{self.where}: {error}") from error


def _encode_group(tokenizer: Any, row: Row) -> Group:
    _one_turn(row["chosen"])
    prompt_ids, chosen_ids = encode_turn(tokenizer, row["prompt"], row["chosen"][0], row["tools"])
    prove_calls(tokenizer, row["chosen"][0], chosen_ids)
    prove_untrained(tokenizer, row["prompt"], prompt_ids)
    prove_no_control(tokenizer, [*row["prompt"], *row["chosen"]])
    wrong = []
    for rejected in row["rejected"]:
        _one_turn(rejected)
        _, rejected_ids = encode_turn(tokenizer, row["prompt"], rejected[0], row["tools"])
        prove_calls(tokenizer, rejected[0], rejected_ids)
        prove_no_control(tokenizer, rejected)
        if rejected_ids == chosen_ids:
            raise UserError(
                f"a rejected answer has the same tokens as the chosen one: {tokenizer.decode(chosen_ids)!r}"
            )
        wrong.append(rejected_ids)
    return Group(prompt_ids, chosen_ids, wrong)


def _one_turn(side: list[Row]) -> None:
    if len(side) != 1 or side[0]["role"] != "assistant":
        raise UserError("chosen and rejected must be one assistant message each (the decision turn)")


def _fits(report: CheckReport, row: Row, length: int, max_length: int | None, on_overlong: OnOverlong) -> bool:
    if max_length is not None and length > max_length:
        if on_overlong == "error":
            raise UserError(
                f"{length} tokens do not fit into max_length {max_length}; raise max_length or set on_overlong: drop"
            )
        report.dropped.append(str(row["meta"].get("id", "?")))
        return False
    report.longest = max(report.longest, length)
    return True


def _not_empty(report: CheckReport, max_length: int | None) -> CheckReport:
    if report.rows == 0:
        raise UserError(f"no row is left to train on ({len(report.dropped)} were longer than max_length {max_length})")
    return report
