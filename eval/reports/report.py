"""The ablation as one self-contained HTML page that opens offline, and as a table in the terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.reports.charts import ARM_COLOURS, Series, curve_chart, rate_chart
from eval.reports.shown_tasks import RIGHT, choose
from eval.reports.views import Rollouts, confusions, dialogues
from eval.scores.causes import CAUSES
from eval.scores.columns import EXECUTED
from eval.scores.metrics import METRICS, Metric

LABELS = {"raw": "Raw", "sft": "+SFT", "dpo": "+DPO", "sft_dpo": "SFT+DPO", "sft_more": "SFT, longer"}
MEANINGS = {
    "raw": "the base model, untrained",
    "sft": "supervised fine-tuning on the positives",
    "dpo": "preference training straight from the base",
    "sft_dpo": "supervised, then preference training with the SFT model as reference",
    "sft_more": "the control: supervised training goes on with the compute that the DPO stage had",
}
BASELINES = {"sft": ("raw",), "dpo": ("raw",), "sft_dpo": ("sft", "sft_more"), "sft_more": ("sft",)}
"""What the demo's arms are measured against, first the arm that it started from."""
VERDICTS = {"better": "▲", "worse": "▼", "no difference": "="}
SAMPLES = 10
SPLIT_METRICS = ("acc_icp_all", "acc_intent", "trajectory_match")
"""Shown for easy and for hard requests apart."""

Ablation = Mapping[str, Any]
Log = Sequence[Mapping[str, Any]]


def label(arm: str) -> str:
    """The arm's name as people read it."""
    return LABELS.get(arm, arm)


def known_metrics(ablation: Ablation) -> list[Metric]:
    """The metrics that some arm has, first the executed verdict of those that were played live."""
    known = {name for entry in ablation["arms"].values() for name in entry["metrics"]}
    return [metric for metric in (EXECUTED, *METRICS) if metric.name in known]


def find_test(ablation: Ablation, metric: str, arm: str, other: str) -> dict[str, Any] | None:
    """The test of `arm` against `other`, turned round if it was made the other way; None if there is none."""
    for test in ablation.get("tests", []):
        if test["metric"] == metric and (test["a"], test["b"]) == (arm, other):
            return dict(test)
        if test["metric"] == metric and (test["a"], test["b"]) == (other, arm):
            turned = {"better": "worse", "worse": "better"}.get(test["verdict"], test["verdict"])
            signs = {"difference": -test["difference"], "low": -test["high"], "high": -test["low"]}
            return {**test, **signs, "a": arm, "b": other, "verdict": turned}
    return None


def baselines(ablation: Ablation, arm: str) -> tuple[str, ...]:
    """What an arm is measured against, first the arm that it started from; empty for the first arm.

    Of arms that the demo does not have: what they were tested against.
    """
    if arm == next(iter(ablation["arms"])):
        return ()
    tested = dict.fromkeys(test["b"] for test in ablation.get("tests", []) if test["a"] == arm)
    return BASELINES.get(arm) or tuple(tested)


def comparisons(ablation: Ablation) -> list[tuple[str, str]]:
    """The pairs of arms that the report sets side by side: each arm and its baselines, as far as they were tested."""
    tested = {frozenset((test["a"], test["b"])) for test in ablation.get("tests", [])}
    pairs = [(arm, base) for arm in ablation["arms"] for base in baselines(ablation, arm)]
    return [pair for pair in pairs if frozenset(pair) in tested]


def tally(ablation: Ablation, arm: str, other: str) -> dict[str, int]:
    """On how many metrics `arm` is better, worse and not different from `other`."""
    found = [test["verdict"] for m in METRICS if (test := find_test(ablation, m.name, arm, other))]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def headline(ablation: Ablation) -> list[str]:
    """What the tests say, a sentence a comparison: how many metrics are better, worse and not different."""
    return [_sentence(arm, other, tally(ablation, arm, other)) for arm, other in comparisons(ablation)]


def _sentence(arm: str, other: str, counts: Mapping[str, int]) -> str:
    parts = [f"{verdict} on {n}" for verdict, n in counts.items() if n]
    return f"{label(arm)} against {label(other)}: {', '.join(parts)} of {sum(counts.values())} metrics."


def power_note(ablation: Ablation) -> str:
    """What the tests cannot see: the smallest difference in `acc_intent` that they find in four of five experiments."""
    tests = (find_test(ablation, "acc_intent", arm, other) for arm, other in comparisons(ablation))
    seen = sorted(test["detectable"] for test in tests if test and "detectable" in test)
    if not seen:
        return ""
    least, most = (f"{100 * value:.1f}" for value in (seen[0], seen[-1]))
    points = least if least == most else f"{least} to {most}"
    return f"On these tasks a difference in acc_intent below {points} points is missed in more than one of five tries."


def write_report(
    ablation: Ablation,
    results: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, Log],
    path: Path,
    rollouts: Rollouts | None = None,
) -> None:
    """Write the report.

    Args:
        ablation: the content of `ablation.json`.
        results: arm -> result of `eval.rollouts.decisions.evaluate` (of one seed), for the samples.
        histories: arm -> lines of the trainer's log, for the curves.
        path: the HTML file to write.
        rollouts: arm -> lines of its `rollouts.jsonl`, for those that were played live.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("eval.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points, "said": said, "label": label, "p": _p_value}
    arms = list(ablation["arms"])
    colours = {arm: index % ARM_COLOURS for index, arm in enumerate(arms)}
    played = {arm for arm, result in results.items() if any("turns" not in task for task in result["tasks"])}
    stepwise = {arm: results[arm] for arm in arms if arm in results and arm not in played}
    html = environment.get_template("report.html").render(
        ablation=ablation,
        arms=arms,
        colours=colours,
        meanings=MEANINGS,
        metrics=known_metrics(ablation),
        tested={test["metric"] for test in ablation.get("tests", [])},
        causes=CAUSES,
        with_causes=all("causes" in entry for entry in ablation["arms"].values()),
        split_metrics=[metric for metric in METRICS if metric.name in SPLIT_METRICS],
        marks=VERDICTS,
        right=RIGHT,
        comparisons=comparisons(ablation),
        tally=lambda arm, other: tally(ablation, arm, other),
        baseline=lambda arm: next(iter(baselines(ablation, arm)), None),
        test=find_test,
        bars=_bars(ablation),
        curves=_curves(histories, colours),
        power=power_note(ablation),
        samples=choose(stepwise, SAMPLES),
        confusions=confusions(stepwise),
        dialogues=dialogues(rollouts or {}),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, "utf-8", errors="backslashreplace")


def _bars(ablation: Ablation) -> list[tuple[Any, str]]:
    colours = {label(arm): index % ARM_COLOURS for index, arm in enumerate(ablation["arms"])}
    charts = []
    for metric in known_metrics(ablation):
        rates = {
            label(arm): entry["metrics"][metric.name]
            for arm, entry in ablation["arms"].items()
            if metric.name in entry["metrics"]
        }
        if rates:
            charts.append((metric, rate_chart(rates, colours, f"bar-{metric.name}")))
    return charts


CURVES = (
    ("SFT loss", "mean loss of the assistant's tokens", "sft", "loss", None),
    ("DPO loss", "0.693 = chosen and rejected still alike", "dpo", "loss", None),
    ("Reward margin", "chosen minus rejected; 0 at the start", "dpo", "rewards/margins", None),
    ("Reward accuracy", "share of pairs in which chosen is ahead", "dpo", "rewards/accuracies", None),
    (
        "Log-probability",
        "solid: chosen, dashed: rejected; chosen should not fall",
        "dpo",
        "logps/chosen",
        "logps/rejected",
    ),
)


def _curves(histories: Mapping[str, Log], colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """The panels for which some arm has points: title, note, svg and the arms in it."""
    panels = []
    for number, (title, note, stage, solid, dashed) in enumerate(CURVES):
        logs = {arm: log for arm, log in histories.items() if _stage(log) == stage and arm in colours}
        series = _series(logs, solid)
        if series:
            svg = curve_chart(series, colours, f"curve-{number}", _series(logs, dashed) if dashed else None)
            panels.append({"title": title, "note": note, "svg": svg, "arms": list(series)})
    return panels


def _stage(log: Log) -> str:
    return "dpo" if any("rewards/margins" in line for line in log) else "sft"


def _series(logs: Mapping[str, Log], field: str) -> Series:
    found = {
        arm: [(float(line["step"]), float(line[field])) for line in log if field in line] for arm, log in logs.items()
    }
    return {arm: points for arm, points in found.items() if points}


def said(value: Any) -> str:
    """A value as the report shows it: JSON, and text without quotes where that is not ambiguous."""
    return json.dumps(value, ensure_ascii=False)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def print_table(ablation: Ablation, console: Any = None) -> None:
    """Print the metrics in per cent with their intervals, and what the tests say; 80 columns hold five arms."""
    from rich.console import Console

    console = console or Console()
    rows = [(metric.name, ablation, metric.name) for metric in known_metrics(ablation)]
    console.print(_rates("Ablation (per cent, 95 % interval below)", rows))
    parts = ablation.get("by_difficulty", {})
    if len(parts) > 1:
        rows = [(f"{name}, {level}", part, name) for name in SPLIT_METRICS for level, part in parts.items()]
        console.print(_rates("Easy and hard requests", rows))
    console.print(
        "[green]▲ better[/], [red]▼ worse[/], = no difference: against the arm it started from, Holm-corrected."
    )
    for sentence in [*headline(ablation), power_note(ablation)]:
        if sentence:
            console.print(sentence)


def _rates(title: str, rows: Sequence[tuple[str, Ablation, str]]) -> Any:
    """A table with an arm a column; a row is what stands before it, what its rates are from, and which metric it is."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_lines=True, padding=(0, 0))
    table.add_column("", no_wrap=True)
    for arm in rows[0][1]["arms"]:
        table.add_column(label(arm), justify="right", no_wrap=True)
    for name, part, metric in rows:
        table.add_row(name, *(_cell(part, metric, arm) for arm in part["arms"]))
    return table


def _cell(ablation: Ablation, metric: str, arm: str) -> str:
    rate = ablation["arms"][arm]["metrics"].get(metric)
    if rate is None:
        return "-"
    test = next((find_test(ablation, metric, arm, base) for base in baselines(ablation, arm)), None)
    mark = VERDICTS[test["verdict"]] if test else " "
    colour = {"▲": "green", "▼": "red"}.get(mark, "default")
    return f"{_percent(rate['value'])} [{colour}]{mark}[/]\n[dim]{_percent(rate['low'])}-{_percent(rate['high'])}[/]"
