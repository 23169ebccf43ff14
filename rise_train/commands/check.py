"""`rise check`: what a recipe would train on, proved and shown, without training."""

from pathlib import Path
from typing import Any

from rise_train.rows.check import CheckReport, check_rows


def check_config(
    path: Path,
    overrides: list[str] | None = None,
    *,
    console: Any = None,
    html: Path | None = None,
    rows: int | None = None,
) -> CheckReport:
    """`rise check CONFIG.yaml`: run the check of the recipe's own stage on its own model and dataset, without training.

    Prints the counts, the length budget, for DPO the reference, and `rows` rows in colour (1 by default) to `console`,
    by default the terminal; writes rows (50 by default) into the page `html`. Raises `UserError` on any violation.
    """
    from rich.console import Console

    from rise_train.models.loading import load_tokenizer
    from rise_train.models.reference import choose, preview
    from rise_train.rows.coloured import paint, views, write_page
    from rise_train.runs.recipe import parse, stage_of

    def say(part: Any) -> None:
        console.print(part, markup=False, highlight=False, soft_wrap=True)

    stage = stage_of(path)
    data, training, model = parse(stage, ["--config", str(path), *(overrides or [])])
    tokenizer = load_tokenizer(model, training)
    report = check_rows(stage, tokenizer, data, training)
    console = console or Console()
    for part in (report.line(), report.budget.line(), report.budget.table()):
        say(part)
    if stage == "dpo":
        for line in preview(choose(data.reference, model, training), model, training):
            say(line)
    for view in views(tokenizer, report, rows or 1):
        say(paint(view, plain=not console.is_terminal))
    if html is not None:
        write_page(html, path, report, views(tokenizer, report, rows or 50))
        say(f"page: {html}")
    return report
