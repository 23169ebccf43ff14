"""Tables of results as text for a paper or a page: Markdown and LaTeX."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.reports.report import VERDICTS, Ablation, baselines, find_test, known_metrics, label, power_note

_SPECIAL = re.compile(r"([&%$#_{}])")
MARKS = {"▲": r"$\uparrow$", "▼": r"$\downarrow$", "=": "=", "^": r"\^{}"}


@dataclass(frozen=True)
class Grid:
    """A table of text: its title, a heading for each column, and what has to be said below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def ablation_grids(ablation: Ablation) -> list[Grid]:
    """Every metric by arm, in per cent, with the interval and the verdict against the arm's first baseline."""
    note = "Per cent and 95 % interval; ▲ better, ▼ worse, = no difference: paired tests, Holm-corrected."
    found = [_metrics("Metrics", ablation, " ".join(filter(None, (note, power_note(ablation)))))]
    parts = ablation.get("by_difficulty", {})
    return found + [_metrics(f"{level.capitalize()} requests", part) for level, part in parts.items() if len(parts) > 1]


def benchmark_grid(results: Mapping[str, Mapping[str, Any]]) -> Grid:
    """The accuracies of several models on one benchmark, by category and column."""
    names = list(dict.fromkeys(name for result in results.values() for name in result["metrics"]))
    first = next(iter(results.values()))
    rows = [[name, *(_rate(result["metrics"].get(name)) for result in results.values())] for name in names]
    missing = "; ".join(f"{part['id']}: {part['reason']}" for part in first["missing"])
    note = "Per cent and 95 % interval; own: the benchmark's rule; exact: values as they stand."
    return Grid(first["benchmark"], ["", *results], rows, f"{note} Not scored: {missing}." if missing else note)


def markdown(grids: Sequence[Grid]) -> str:
    """The tables in Markdown."""
    parts = []
    for grid in grids:
        lines = [_line(grid.columns), _line(["---", *["---:"] * (len(grid.columns) - 1)]), *map(_line, grid.rows)]
        parts.append("\n".join([f"**{grid.title}**", "", *lines, *(["", grid.note] if grid.note else [])]))
    return "\n\n".join(parts) + "\n"


def latex(grids: Sequence[Grid]) -> str:
    """The tables in LaTeX, each a `table` with `booktabs` rules."""
    parts = []
    for grid in grids:
        caption = f"{grid.title}. {grid.note}" if grid.note else grid.title
        body = [_cells(grid.columns), r"\midrule", *map(_cells, grid.rows)]
        spec = "l" + "r" * (len(grid.columns) - 1)
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_escaped(caption)}}}",
                    rf"\begin{{tabular}}{{{spec}}}",
                    r"\toprule",
                    *body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _metrics(title: str, ablation: Ablation, note: str = "") -> Grid:
    arms = list(ablation["arms"])
    names = [metric.name for metric in known_metrics(ablation)]
    rows = [[name, *(_cell(ablation, name, arm) for arm in arms)] for name in names]
    return Grid(title, ["", *map(label, arms)], rows, note)


def _cell(ablation: Ablation, metric: str, arm: str) -> str:
    text = _rate(ablation["arms"][arm]["metrics"].get(metric))
    tests = (find_test(ablation, metric, arm, base) for base in baselines(ablation, arm))
    test = next((test for test in tests if test), None)
    return f"{text} {VERDICTS[test['verdict']]}" if test else text


def _rate(rate: Mapping[str, float] | None) -> str:
    if rate is None:
        return "-"
    return f"{100 * rate['value']:.1f} ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _cells(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    text = _SPECIAL.sub(r"\\\1", text.replace("\\", " "))
    for mark, command in MARKS.items():
        text = text.replace(mark, command)
    return text
