"""`rise data`: look at a dataset, hand it to other trainers, and clean it of benchmark text."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    rich_markup_mode=None, help="Look at a dataset, export it, and clean it of benchmark text.", no_args_is_help=True
)

Dataset = Annotated[Path, typer.Argument(metavar="RUN_OR_DATASET", help="A run of `rise synth`, or its dataset/.")]


@app.command()
def export(
    dataset: Dataset,
    to: Annotated[str, typer.Option(help="`trl`, `ms-swift`, `llamafactory` or `openai`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
) -> None:
    """Write positives and pairs in the format of another trainer."""
    from synthesis.dataset.reading import read
    from synthesis.dataset.trainer_formats import export as write

    for path in write(read(dataset), to, output):
        typer.echo(f"written to {path}")


@app.command()
def show(
    dataset: Dataset,
    index: Annotated[int, typer.Option(min=0, help="Which of the samples that fit, from 0.")] = 0,
    id: Annotated[str | None, typer.Option(help="Of a sample, group, negative, trajectory or real call.")] = None,
    split: Annotated[str | None, typer.Option(help="`train` or `test`.")] = None,
    server: Annotated[str | None, typer.Option(help="Only samples that call this server.")] = None,
    pattern: Annotated[str | None, typer.Option(help="E.g. `sequential`.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only negatives of this mutation, e.g. `antonym`.")] = None,
    executed: Annotated[str | None, typer.Option(help="Only negatives with this verdict, e.g. `covert`.")] = None,
    difficulty: Annotated[str | None, typer.Option(help="E.g. `correction`.")] = None,
) -> None:
    """Print one sample: request, steps, results, the right call and what deviates from it."""
    from rich.console import Console

    from rise_train.commands.terminal_page import show as print_page
    from synthesis.dataset.reading import read
    from synthesis.dataset.sample_pages import Filter, find, pages
    from synthesis.errors import UserError

    found = pages(read(dataset))
    found = Filter(split, server, pattern, kind, executed, difficulty)(found if id is None else find(found, id))
    if index >= len(found):
        raise UserError(f"{dataset}: {len(found)} samples fit, so there is none with --index {index}.")
    console = Console(highlight=False)
    print_page(console, found[index])
    console.print(f"{index} of {len(found)} that fit", style="dim")


@app.command()
def view(
    dataset: Dataset,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("data.html"),
) -> None:
    """Write one HTML file to browse the dataset in: filters, search, right beside deviating. Works offline."""
    from synthesis.dataset.html_browser import write
    from synthesis.dataset.reading import read

    shown, total = write(read(dataset), output)
    sampled = "" if shown == total else f", a sample of {total}, because the file would grow too big"
    typer.echo(f"written to {output}: {shown} samples{sampled}")


@app.command()
def decontaminate(
    dataset: Dataset,
    against: Annotated[list[Path], typer.Option(help="A benchmark's JSON or JSONL file or folder; may be repeated.")],
    ngram: Annotated[int, typer.Option(min=5, help="So many equal words in a row are a match.")] = 8,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write a cleaned dataset here.")] = None,
) -> None:
    """Find requests that also stand in benchmarks; with -o, write the dataset without them."""
    from synthesis.dataset.decontaminate import check, clean
    from synthesis.dataset.reading import read

    stored = read(dataset)
    report = check(stored, against, ngram)
    for match in report.matches:
        typer.echo(f"{match.id} ({match.split}) shares {match.shared!r} with {match.file}")
        typer.echo(f"  {match.request}")
    typer.echo(
        f"{len(report.ids)} of {report.compared} requests share {ngram} words with {report.texts} texts in "
        f"{report.files} files; {report.too_short} were too short to compare"
    )
    if output is not None:
        positives, negatives = clean(stored, report, output)
        typer.echo(f"written to {output}, without {positives} positives and {negatives} negatives")
