"""`rise report`: any results side by side, in the terminal, as a page, and as tables for a paper."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rise_train.ablation.arms import RAW
from rise_train.ablation.job_graph import read_history
from synthesis.errors import UserError
from synthesis.json_file import write_json

if TYPE_CHECKING:
    from eval.reports.grids import Grid

Result = dict[str, Any]


def report(
    sources: Sequence[str],
    output: Path | None = None,
    markdown_out: Path | None = None,
    latex_out: Path | None = None,
    json_out: Path | None = None,
) -> None:
    """Print the comparison of what `sources` name, and write it in the forms that are asked for.

    Args:
        sources: folders in which `rise ablate` has finished, and result files of `rise eval` or of `rise bench`; a file
            may be named, `NAME=FILE`. The first is what the others are tested against, unless one folder stands alone:
            then its own tests count.
        output: the HTML page; of a folder that stands alone RUN/report.html by default.

    Raises:
        UserError: a source that is neither, results on different tasks, or of evaluations and benchmarks at once.
    """
    from eval.reports.grids import ablation_grids, latex, markdown
    from eval.reports.report import print_table, write_report

    alone = Path(sources[0]) if len(sources) == 1 and Path(sources[0]).is_dir() else None
    results, histories, rollouts = _results(sources)
    if any("benchmark" in result for result in results.values()):
        grids, found = [_benchmark(results)], dict(results)
        if output is not None:
            raise UserError("--output: a page is made of evaluations; benchmarks have --markdown, --latex and --json")
        _print(grids[0])
    else:
        found = _ablation(alone) if alone else _compared(results)
        grids, output = ablation_grids(found), output or (alone / "report.html" if alone else None)
        if output is not None:
            write_report(found, results, histories, output, rollouts)
        print_table(found)
    for path, text in ((markdown_out, markdown(grids)), (latex_out, latex(grids))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if json_out is not None:
        write_json(json_out, found, indent=1, sort_keys=True)
    for path in (output, markdown_out, latex_out, json_out):
        if path is not None:
            Console(stderr=True).print(f"report: {path}", highlight=False, soft_wrap=True)


def _ablation(run: Path) -> dict[str, Any]:
    path = run / "ablation.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a folder in which `rise ablate` has finished")
    ablation: dict[str, Any] = json.loads(path.read_text())
    return ablation


def _compared(results: dict[str, Result]) -> dict[str, Any]:
    """Results that stand for themselves, as one ablation."""
    from eval.reports.side_by_side import side_by_side

    found = side_by_side({name: [result] for name, result in results.items()})
    for name, result in results.items():
        found["arms"][name]["model"] = result["model"]
    first = next(iter(results.values()))
    return {**found, "data": {key: first.get(key) for key in ("dataset", "split", "half")}}


def _results(sources: Sequence[str]) -> tuple[dict[str, Result], dict[str, Any], dict[str, list[Any]]]:
    """Every arm's result, of one seed, by its name; the trainers' logs of runs, and the rollouts of live results."""
    found: dict[str, Result] = {}
    histories: dict[str, Any] = {}
    rollouts: dict[str, list[Any]] = {}
    for source in sources:
        if Path(source).is_dir():
            run, ablation = Path(source), _ablation(Path(source))
            for arm, facts in ablation["arms"].items():
                name = arm if len(sources) == 1 else f"{run.resolve().name}/{arm}"
                file = run / facts["result"]
                if not file.is_file():
                    raise UserError(f"{file}: the replies of arm {arm} are gone; run `rise ablate` again")
                _add(found, name, json.loads(file.read_text()))
                if arm != RAW:
                    histories[name] = read_history(run / facts["model"])
        else:
            name, _, file_name = source.rpartition("=")
            result = _read(Path(file_name))
            name = name or Path(str(result["model"])).name
            _add(found, name, result)
            log = Path(file_name).with_suffix("") / "rollouts.jsonl"
            if result.get("mode") == "live" and log.is_file():
                rollouts[name] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return found, histories, rollouts


def _add(found: dict[str, Result], name: str, result: Result) -> None:
    if name in found:
        raise UserError(f"{name}: two results go by that name; give them others, as NAME=FILE")
    found[name] = result


def _read(path: Path) -> Result:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a run's folder or a result file of `rise eval` or `rise bench`") from error
    if not isinstance(found, dict) or not {"metrics", "model"} <= found.keys() or not {"tasks", "cases"} & found.keys():
        raise UserError(f"{path}: expected what `rise eval` or `rise bench` wrote with --json")
    return found


def _benchmark(results: dict[str, Result]) -> "Grid":
    from eval.reports.grids import benchmark_grid

    names = {str(result.get("benchmark", "an evaluation of tasks")) for result in results.values()}
    if len(names) > 1:
        raise UserError(f"expected results of one kind, found {', '.join(sorted(names))}")
    return benchmark_grid(results)


def _print(grid: "Grid") -> None:
    table = Table(title=grid.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in grid.columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*row)
    console = Console()
    console.print(table, highlight=False)
    console.print(grid.note, highlight=False)
