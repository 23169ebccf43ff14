"""`rise data`: look at a dataset, hand it to other trainers, and clean it of benchmark text."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look at a dataset, export it, and clean it of benchmark text.", no_args_is_help=True)

Dataset = Annotated[Path, typer.Argument(metavar="RUN_OR_DATASET", help="A run of `rise synth`, or its dataset/.")]


@app.command()
def export(
    dataset: Dataset,
    to: Annotated[str, typer.Option(help="`trl`, `ms-swift`, `llamafactory` or `openai`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
) -> None:
    """Write positives and pairs in the format of another trainer."""
    from synthesis.export import export as write
    from synthesis.stored import read

    for path in write(read(dataset), to, output):
        typer.echo(f"written to {path}")
