"""Quality of several datasets side by side: by rule, and by a judge where one is named."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from eval.benchmarks.load import examples
from eval.rollouts.progress import progress_of
from eval.scores.judge import open_judge, quality_of
from eval.scores.quality import JUDGED, PAPER, quality
from synthesis.errors import UserError
from synthesis.json_file import write_json


def data_quality(
    datasets: Sequence[str], json_out: Path | None = None, limit: int | None = None, judge: str | None = None
) -> dict[str, Any]:
    """Rates of each dataset by rule and, with `judge`, by that model (RISE, section 4.2).

    Args:
        datasets: as `eval.benchmarks.load.examples` takes them.
        json_out: where to write the result; the judge's answers are kept beside it, so that the same call goes on.
        limit: at most so many examples of each, a seeded sample.
        judge: URL#MODEL.

    Returns:
        {"metrics", "missing", "engine", "datasets", "paper"}; the first two are those of the first dataset, `datasets`
        has them of each, with `n_examples` and, where judged, `agreement` and `unjudged`. Rates are in 0..1.

    Raises:
        UserError: no such dataset, a judge that cannot be asked, or one without `json_out`.
    """
    if judge is not None and json_out is None:
        raise UserError("--judge: expected --json OUT beside it, since the judge's answers are kept there")
    chosen = {name: examples(name, limit) for name in datasets}
    found: dict[str, dict[str, Any]] = {
        name: {"metrics": quality(rows), "missing": list(JUDGED), "n_examples": len(rows)}
        for name, rows in chosen.items()
    }
    engine: dict[str, Any] = {"kind": "rules"}
    if judge is not None and json_out is not None:
        with ExitStack() as files:
            asked = open_judge(judge, json_out.with_name(json_out.name + ".judge"), files)
            for name, rows in chosen.items():
                with progress_of(f"judge: {name}", len(rows), "examples") as advance:
                    said = quality_of(rows, asked, advance)
                unheard = [count for count in JUDGED if not said["metrics"][f"{count}.judge"]["n"]]
                metrics = {**found[name]["metrics"], **said.pop("metrics")}
                found[name] |= {"metrics": metrics, "missing": unheard, **said}
            engine = {"kind": "rules and judge", **asked.engine(), "costs": asked.client.costs.table()}
    first = found[datasets[0]]
    result = {"metrics": first["metrics"], "missing": first["missing"], "engine": engine}
    result |= {"datasets": found, "paper": PAPER}
    if json_out is not None:
        write_json(json_out, result, indent=1, sort_keys=True)
    return result
