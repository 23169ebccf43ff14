"""Rows as people can check them: which tokens are trained, and where the two answers of a pair differ, in colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rise_train.rows.budget import columns
from rise_train.rows.groups import differing
from rise_train.rows.row_proofs import text_of

Kind = Literal["prompt", "trained", "right", "wrong"]
"""Without loss; with loss; with loss and what only the right, or only the wrong answer has."""


class Piece(NamedTuple):
    """Text of one kind."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class View:
    """One row; of a group the first pair, the wrong answer behind the whole right sequence."""

    id: str
    pieces: list[Piece]
    rejected: list[Piece]
    """Empty for SFT."""


STYLES: dict[Kind, str] = {
    "prompt": "dim",
    "trained": "green",
    "right": "bold white on green",
    "wrong": "bold white on red",
}
"""How the terminal shows each kind."""
BRACKETS: dict[Kind, tuple[str, str]] = {
    "prompt": ("", ""),
    "trained": ("\N{LEFT ANGLE BRACKET}", "\N{RIGHT ANGLE BRACKET}"),
    "right": ("[+", "+]"),
    "wrong": ("[-", "-]"),
}
"""How plain text shows each kind."""


def views(tokenizer: Any, report: Any, count: int) -> list[View]:
    """The first `count` rows of a `CheckReport`."""
    if report.stage == "sft":
        shown = islice(zip(report.ids, report.encoded, strict=True), count)
        return [View(id_, _conversation(tokenizer, encoded), []) for id_, encoded in shown]
    pairs = islice(zip(report.ids, report.groups, strict=True), count)
    return [_pair(tokenizer, id_, group.pairs[0]) for id_, group in pairs]


def _conversation(tokenizer: Any, encoded: Any) -> list[Piece]:
    pieces, last = [], 0
    for start, end in encoded.spans:
        pieces.append(Piece(text_of(tokenizer, encoded.input_ids[last:start]), "prompt"))
        pieces.append(Piece(text_of(tokenizer, encoded.input_ids[start:end]), "trained"))
        last = end
    rest = Piece(text_of(tokenizer, encoded.input_ids[last:]), "prompt")
    return [*pieces, rest] if rest.text else pieces


def _pair(tokenizer: Any, id_: str, pair: Any) -> View:
    right, wrong = differing(pair.chosen_ids, pair.rejected_ids)
    prompt = Piece(text_of(tokenizer, pair.prompt_ids), "prompt")
    chosen = [prompt, *_marked(tokenizer, pair.chosen_ids, right, "right")]
    return View(id_, chosen, _marked(tokenizer, pair.rejected_ids, wrong, "wrong"))


def _marked(tokenizer: Any, ids: Sequence[int], differs: range, kind: Kind) -> list[Piece]:
    """An answer with its differing tokens marked; widened where a token boundary runs through a character."""
    start, end = differs.start, differs.stop
    while start > 0 and text_of(tokenizer, list(ids[:start])).endswith("\ufffd"):
        start -= 1
    while end < len(ids) and text_of(tokenizer, list(ids[start:end])).endswith("\ufffd"):
        end += 1
    parts: list[tuple[Sequence[int], Kind]] = [(ids[:start], "trained"), (ids[start:end], kind), (ids[end:], "trained")]
    return [Piece(text_of(tokenizer, list(part)), k) for part, k in parts if part]


def paint(view: View, plain: bool = False) -> Any:
    """The row as rich text: colours in a terminal, brackets around what is trained in plain text."""
    from rich.text import Text

    text = Text(f"row {view.id}\n", style="bold")
    for title, pieces in (("", view.pieces), ("\nrejected: ", view.rejected)):
        if not pieces:
            continue
        text.append(title, "bold")
        for piece in pieces:
            before, after = BRACKETS[piece.kind] if plain else ("", "")
            text.append(before + piece.text + after, STYLES[piece.kind])
    return text


def write_page(path: Path, recipe: Path, report: Any, shown: Sequence[View]) -> None:
    """Write the rows, the counts and the length budget as one HTML file that asks nothing of any network.

    All text is escaped, so tool results and requests stay text.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string((Path(__file__).parent / "coloured.html").read_text("utf-8"))
    total = len(report.ids)
    page = template.render(recipe=recipe, report=report, views=shown, total=total, columns=columns())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")
