"""What subcommands print: tables on standard output, and what was left out on standard error."""

import re
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
    _show_rates("Quality of data, by rule", found, paper, {rule: rule for rule in rules})
    for name, meaning in rules.items():
        print(f"{name}: {meaning}")


def show_judged(found: dict[str, Any], paper: dict[str, dict[str, float]]) -> None:
    """Print what the judge said of datasets, the paper's judge below it, and how far rules and people agree with it."""
    metrics = next(iter(found.values()))["metrics"]
    counts = {name: name.removesuffix(".judge") for name in metrics if name.endswith(".judge")}
    _show_rates("Quality of data, by the judge: (score - 1) / 4, and score / 5", found, paper, counts)
    for dataset, entry in found.items():
        for count, agreed in entry["agreement"].items():
            other = "people" if count == "response_correctness" else "the rule"
            kappa = "none to tell" if agreed["kappa"] is None else f"{agreed['kappa']:.2f}"
            name = f"{_short(dataset)}, {count}"
            print(f"{name}: judge and {other} agree on {agreed['share']:.0%} of {agreed['n']}, kappa {kappa}")
        if entry["unjudged"]:
            print(f"{_short(dataset)}: {entry['unjudged']} of {entry['n_examples']} had no usable answer")


def _short(dataset: str) -> str:
    kind, _, folder = dataset.rpartition(":")
    return f"{kind}:{Path(folder).name}" if kind else dataset


def _show_rates(title: str, found: dict[str, Any], paper: dict[str, dict[str, float]], counts: dict[str, str]) -> None:
    """A table of rates with their intervals; `counts` maps each metric to the paper's name of it."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("", min_width=12, overflow="fold")
    for column in ("n", *(re.sub("_|(ness|tency)$", _break, count) for count in counts.values())):
        table.add_column(column, justify="right", no_wrap=True)
    for name, entry in found.items():
        rates = [_with_interval(entry["metrics"][metric]) for metric in counts]
        table.add_row(_short(name), str(entry["n_examples"]), *rates)
    for name, known in paper.items():
        if known.keys() & set(counts.values()):
            told = [f"{known[count]:.2f}" if count in known else "" for count in counts.values()]
            table.add_row(f"{name}, paper", "", *told, style="dim")
    Console().print(table, highlight=False)


def _break(found: re.Match[str]) -> str:
    return f"-\n{found[1]}" if found[1] else "\n"


def _with_interval(rate: dict[str, float]) -> str:
    if not rate["n"]:
        return "none"
    fifths = f"\n{rate['fifths']:.2f}" if "fifths" in rate else ""
    interval = "-".join(f"{rate[end]:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{rate['value']:.2f}\n{interval}{fifths}"


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
