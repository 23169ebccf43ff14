"""What subcommands print: tables on standard output, and what was left out on standard error."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.benchmarks.bench import COLUMNS, IDLE
from eval.reports.views import lines_of
from eval.rollouts.talk import Talk
from eval.scores.columns import EXECUTED
from eval.scores.metrics import METRICS
from synthesis.pipeline import Summary


def show_summary(summary: Summary) -> None:
    """Print the counts of a run, nested ones in one line each."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    counts = dict(summary.counts)
    rows = list(counts.pop("executed_by_kind").values())  # the card has the rows, and those by server
    del counts["executed_by_server"]
    verdicts = {verdict: sum(row[verdict] for row in rows) for verdict in (rows[0] if rows else ())}
    for name, count in {**counts, "executed": verdicts}.items():
        table.add_row(f"[bold]{name.replace('_', ' ')}[/]", _shown(count))
    console = Console()
    console.print(table, highlight=False)
    done = "was complete before" if summary.already_done else f"done in {summary.seconds:.0f} s"
    console.print(f"{done}: {summary.run / 'dataset'}", highlight=False, soft_wrap=True)
    for sentence in summary.advice:
        console.print(f"note: {sentence}", highlight=False, soft_wrap=True, markup=False)


def _shown(count: Any) -> str:
    """A count, or counts by name, the inner ones in brackets."""
    if not isinstance(count, dict):
        return str(count)
    inner = {name: f"({_shown(value)})" if isinstance(value, dict) else value for name, value in count.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in inner.items())


def show_talk(talk: Talk) -> None:
    """Print a request with all that was called and said."""
    console = Console()
    for message in talk.messages:
        for who, text in lines_of(message):
            console.print(f"[bold]{who:<9}[/] ", end="")
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    if talk.ending != "words":
        console.print(f"[red]ended by {talk.ending}[/] ", end="")
        console.print(talk.fault, highlight=False, markup=False, soft_wrap=True)
    console.print()


def show_quality(found: dict[str, Any], paper: dict[str, dict[str, float]], rules: dict[str, str]) -> None:
    """Print the rates of datasets by rule, the paper's below them, and what each rule looks at."""
    table = Table(
        title="Quality of data, by rule", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    for column in ("", "n", *(rule.replace("_", "\n") for rule in rules)):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for name, entry in found.items():
        kind, _, folder = name.rpartition(":")
        rates = [
            f"{rate['value']:.2f}\n{rate['low']:.2f}-{rate['high']:.2f}" if rate["n"] else "none"
            for rate in (entry["metrics"][rule] for rule in rules)
        ]
        table.add_row(f"{kind}:{Path(folder).name}" if kind else name, str(entry["n_examples"]), *rates)
    for name, known in paper.items():
        if known.keys() & rules.keys():
            told = [f"{known[rule]:.2f}" if rule in known else "" for rule in rules]
            table.add_row(f"{name} (paper's judge)", "", *told, style="dim")
    Console().print(table, highlight=False)
    for name, meaning in rules.items():
        print(f"{name}: {meaning}")


def show_metrics(result: dict[str, Any]) -> None:
    """Print the metrics of one model with their intervals."""
    live = result.get("mode") == "live"
    title = f"{Path(result['model']).name}: {result['n_tasks']} tasks of {result['split']}{', live' if live else ''}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column, justify in (("metric", "left"), ("%", "right"), ("95 % interval", "right"), ("n", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("share of", style="dim")
    for metric in ([EXECUTED] if live else []) + list(METRICS):
        table.add_row(metric.name, *_cells(result["metrics"][metric.name]), metric.meaning)
    for name, rate in result["metrics"].items():
        if name.startswith("pass"):
            meaning = "tasks right in all of so many trials" if "^" in name else "tasks right in one of so many trials"
            table.add_row(name, *_cells(rate), meaning)
    Console().print(table, highlight=False)
    least = 100 * result["power"]["detectable"]
    print(
        f"Another model would have to differ by {least:.1f} points in acc_intent to be told apart on these tasks "
        f"(in four of five tries, if the two disagree on one task in ten)."
    )
    for task in result["missing"]:
        Console(stderr=True).print(f"not judged: {task['id']}: {task['reason']}", highlight=False, soft_wrap=True)


def _cells(rate: dict[str, float]) -> tuple[str, str, str]:
    return f"{100 * rate['value']:.1f}", f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f}", str(rate["n"])


def show_bench(result: dict[str, Any]) -> None:
    """Print a benchmark's accuracies by category: own rule, exact values, and what doing nothing scores."""
    title = f"{Path(result['model']).name}: {result['benchmark']}, % right and 95 % interval"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in ("category", "n", *COLUMNS, "no_op"):
        table.add_column(heading, justify="left" if heading == "category" else "right", no_wrap=True)
    metrics, idle = result["metrics"], result["baselines"][IDLE]
    for category in dict.fromkeys(name.rpartition(".")[0] for name in metrics):
        names = [f"{category}.{column}" for column in COLUMNS]
        known = [name for name in names if name in metrics]
        counts = "/".join(dict.fromkeys(str(metrics[name]["n"]) for name in known))
        table.add_row(category, counts, *(_rate(metrics.get(name)) for name in names), f"{100 * idle[known[0]]:.1f}")
    Console().print(table, highlight=False)
    for part in result["missing"]:
        said = f"not scored: {part['id']}, {part['n']} cases: {part['reason']}"
        Console(stderr=True).print(said, highlight=False, soft_wrap=True)


def _rate(rate: dict[str, float] | None) -> str:
    if rate is None:
        return "not scored"
    return f"{100 * rate['value']:.1f}  {100 * rate['low']:.1f}-{100 * rate['high']:.1f}"
