"""The command line, `rise`: one subcommand a stage.

Nothing heavy is imported at module level, so `rise --help` answers at once. A `UserError` becomes one sentence on
stderr and exit status 2.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rise_train.commands import data as data_commands
from rise_train.commands import servers as servers_commands
from synthesis.errors import UserError

if TYPE_CHECKING:
    pass

HELP = """Train a model to call tools as the user meant it.

The usual way: synth (real MCP calls to a dataset), check (what a recipe would train on), ablate (train and
compare every arm), publish (a folder for the Hub).

One stage alone: `rise train recipes/tiny/sft/config_full.yaml`, with --dry-run to see what it would take.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data_commands.app, name="data")
app.add_typer(servers_commands.app, name="servers")


@app.command()
def synth(
    servers: Annotated[
        Path,
        typer.Argument(metavar="SERVERS.json", help="mcpServers JSON, as Claude Desktop, Cursor and VS Code use it."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run directory: journals, manifest, dataset/.")],
    seed: Annotated[int, typer.Option(help="Fixes everything: the same seed gives the same dataset.")] = 0,
    positives: Annotated[int, typer.Option(min=1, help="How many requests with their right calls.")] = 1600,
    negatives: Annotated[int, typer.Option(min=1, help="At most so many deviating calls to a decision turn.")] = 4,
    author: Annotated[
        str, typer.Option(help="Who writes the requests: `offline` needs no model, `llm` asks --model.")
    ] = "offline",
    model: Annotated[str | None, typer.Option(help="With --author llm: the model's name at its endpoint.")] = None,
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible address; default: OpenAI's own.")] = None,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key; keys come no other way.")
    ] = "OPENAI_API_KEY",
    workers: Annotated[int, typer.Option(min=1, help="Requests to the model at a time.")] = 8,
    max_tokens_total: Annotated[
        int | None, typer.Option(min=1, help="Stop the run at so many tokens, in and out together.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Stop the run at so many USD; wants --prices.")] = None,
    prices: Annotated[
        Path | None, typer.Option(help="YAML or JSON: MODEL: {input: USD, output: USD}, a million tokens.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds without a word of a model's reply before it is asked again.")
    ] = 300,
    max_reply_tokens: Annotated[int, typer.Option(min=1, help="The longest reply of the model.")] = 4096,
    temperature: Annotated[float | None, typer.Option(help="Of the model; default: its own.")] = None,
    extra_body: Annotated[
        str | None, typer.Option(metavar="JSON", help="What else goes into each request, e.g. switches of thinking.")
    ] = None,
    tools_per_prompt: Annotated[int, typer.Option(min=1, help="Candidate tools in a prompt, gold ones included.")] = 4,
    result_chars: Annotated[int, typer.Option(min=20, help="Tool results are cut to this length.")] = 300,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="Only test may know it: `server:NAME`, `tool:NAME` or `field:NAME`; may be repeated."),
    ] = None,
    kinds: Annotated[
        str, typer.Option(help="Kinds of deviating calls: `paper` for the paper's, `all` for four more.")
    ] = "all",
    execute: Annotated[
        bool,
        typer.Option("--execute/--no-execute", help="Whether the real tools are asked what they say to negatives."),
    ] = True,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Score deviating texts by meaning; wants the extra `embeddings`.")
    ] = False,
    wordnet: Annotated[
        bool, typer.Option("--wordnet", help="Take deviating words from an installed WordNet database too.")
    ] = False,
    neighbours: Annotated[
        bool,
        typer.Option("--neighbours", help="Take words near in meaning too; wants the extra `embeddings`."),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: discard what RUN holds.")] = False,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every server's answers to FILE.")] = None,
    replay: Annotated[Path | None, typer.Option(metavar="FILE", help="Answer from FILE; no server runs.")] = None,
) -> None:
    """Make a dataset from the servers' tools by really calling them.

    Only tools that are marked read-only or allowed in SERVERS.json run, in a throw-away copy of the sandbox. Stop it at
    any moment; the same command goes on where it was.
    """
    from rise_train.commands.tables import show_summary
    from synthesis.llm.client import OPENAI, Endpoint, ModelOptions
    from synthesis.llm.costs import Limits
    from synthesis.pipeline import synthesize

    llm = None
    if author == "llm" or model is not None:
        endpoint = Endpoint(
            model or "",
            base_url or OPENAI,
            api_key_env,
            workers,
            timeout_s=timeout,
            max_tokens=max_reply_tokens,
            temperature=temperature,
            extra_body=_json_object("--extra-body", extra_body),
        )
        llm = ModelOptions(endpoint, Limits(max_tokens_total, max_cost), prices)
    summary = synthesize(
        servers,
        output,
        seed=seed,
        positives=positives,
        negatives=negatives,
        author=author,
        llm=llm,
        fresh=fresh,
        tools_per_prompt=tools_per_prompt,
        result_chars=result_chars,
        hold_out=hold_out or (),
        kinds=kinds,
        execute=execute,
        embeddings=embeddings,
        wordnet=wordnet,
        neighbours=neighbours,
        record=record,
        replay=replay,
    )
    show_summary(summary)


def _json_object(option: str, text: str | None) -> dict[str, Any]:
    """The object that an option gives as JSON; empty where it is left out."""
    import json

    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise UserError(f"{option}: expected a JSON object, but: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{option}: expected a JSON object, not {text}")
    return found


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, id of the Hub, URL#MODEL or policy:NAME.")],
    dataset: Annotated[Path, typer.Option(help="The dataset that `rise synth` wrote: RUN/dataset.")],
    split: Annotated[str, typer.Option(help="Which split to score.")] = "test",
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write every reply and score here.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many tasks, a seeded sample.")] = None,
    half: Annotated[str | None, typer.Option(help="`validation`, to choose something on, or `final`.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="A longer reply is cut, and counted as cut.")] = 256,
    live: Annotated[Path | None, typer.Option(metavar="SERVERS.json", help="Let it act on these servers.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="With --live: turns after which a task ends.")] = 10,
    sets: Annotated[int, typer.Option(min=1, help="With --live: so many tasks at a time.")] = 2,
    trials: Annotated[int, typer.Option(min=1, help="With --live: play each task so often.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="With --live and URL#MODEL; 0 is greedy.")] = 0.0,
) -> None:
    """Score a model: one greedy reply to every decision turn, or with --live whole tasks on running servers."""
    from eval.rollouts.decisions import evaluate as score
    from eval.rollouts.live import evaluate_live
    from eval.rollouts.talk import Limits
    from rise_train.commands.tables import show_metrics

    options: dict[str, Any] = {"half": half, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    if live is None:
        result = score(model, dataset, split, json_out, limit, **options)
    elif json_out is None:
        raise UserError("--live: expected --json OUT.json as well; the rollouts are kept in the folder OUT beside it")
    else:
        options |= {"limits": Limits(turns), "sets": sets, "trials": trials, "temperature": temperature}
        result = evaluate_live(model, dataset, live, json_out, split, limit, **options)
    show_metrics(result)
    if json_out is not None:
        typer.echo(f"written to {json_out}")


@app.command()
def rollout(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, id of the Hub, URL#MODEL or policy:NAME.")],
    servers: Annotated[Path, typer.Argument(metavar="SERVERS.json", help="The servers that it acts on.")],
    requests: Annotated[list[str], typer.Argument(metavar="REQUEST...", help="What the user asks for.")],
    tool: Annotated[list[str] | None, typer.Option(help="A tool on offer; may be repeated. Default: all.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Turns after which a request ends.")] = 10,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="A longer reply is cut.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="With URL#MODEL; 0 is greedy.")] = 0.0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the talks here.")] = None,
) -> None:
    """Let a model act on requests of your own, on real servers in a throw-away sandbox, and show what it does."""
    from eval.rollouts.requests import play_requests
    from eval.rollouts.talk import Limits
    from rise_train.commands.tables import show_talk
    from synthesis.json_file import write_json

    talks = play_requests(
        model,
        servers,
        requests,
        show_talk,
        tools=tool or (),
        limits=Limits(turns),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
    )
    if json_out is not None:
        write_json(json_out, [talk.as_dict() for talk in talks], indent=1)
        typer.echo(f"written to {json_out}")


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`bfcl`, `acebench` or `ste`.")],
    path: Annotated[Path, typer.Option(help="A folder with the benchmark's own files.")],
    model: Annotated[str, typer.Option(help="Folder, id of the Hub, URL#MODEL or policy:NAME.")],
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write every reply and verdict here.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many cases a category, a seeded sample.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="A longer reply is cut.")] = 512,
) -> None:
    """Score a model on a known benchmark: by the benchmark's own rule, and with values as they stand."""
    from eval.benchmarks.bench import bench as score
    from rise_train.commands.tables import show_bench

    result = score(name, path, model, json_out, limit, batch_size=batch_size, max_new_tokens=max_new_tokens)
    show_bench(result)
    if json_out is not None:
        typer.echo(f"written to {json_out}")


@app.command()
def check(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Recipe of a stage, e.g. recipes/tiny/sft/config_full.yaml.")
    ],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the rows as a page, in colour.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows to show; default: 1 in the terminal, 50 in the page.")
    ] = None,
) -> None:
    """Check a recipe before it trains: what is rendered, what carries loss, what is too long."""
    from rise_train.commands.check import check_config

    check_config(config, html=html, rows=rows)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Recipe of a stage, e.g. recipes/tiny/sft/config_full.yaml.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    config_file: Annotated[
        Path | None, typer.Option("--config_file", help="How to launch: recipes/accelerate_configs/*.yaml.")
    ] = None,
    num_processes: Annotated[
        int | None, typer.Option("--num_processes", min=1, help="Instead of the launch file's number.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(min=0.001, help="10^12 operations a second of one device, for the time.")
    ] = None,
) -> None:
    """Train one stage by its recipe, on one process or many; any field of it may follow as --NAME VALUE.

    First it checks the data and says what the training will take; the same command goes on after an interruption.
    """
    from rise_train.runs.dry_run import train as run

    raise typer.Exit(
        run(config, context.args, config_file=config_file, processes=num_processes, tflops=tflops, dry=dry_run)
    )


@app.command()
def mine(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, adapter folder, or an id of the Hub.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A run of `rise synth`, or its dataset/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    keep: Annotated[int, typer.Option(min=1, help="Negatives of a group at most, the likeliest.")] = 4,
    own_replies: Annotated[
        int, typer.Option(min=0, help="Ask the model so often for its own reply; wrong ones join the pool.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many groups, a seeded sample.")] = None,
    difficulty: Annotated[str, typer.Option(help="Only requests that are `easy`, or only `hard` ones.")] = "all",
    split: Annotated[str, typer.Option(help="Which split to mine; the others are taken over.")] = "train",
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts decoded together.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="A longer reply is cut, and not used.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the replies that are drawn.")] = 0,
) -> None:
    """Write a dataset with the negatives that a model finds likely, of those that DATASET has.

    Stop it at any moment; the same command goes on where it was.
    """
    from rise_train.mining.hard_negatives import Options
    from rise_train.mining.hard_negatives import mine as write

    options = Options(keep, own_replies, limit, difficulty, split, max_new_tokens, seed)
    counts = write(model, dataset, output, options, batch_size)
    typer.echo(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items()))
    typer.echo(f"written to {output}")


@app.command()
def model(
    source: Annotated[
        str, typer.Argument(metavar="smollm2|FILE.gguf", help="Which model to get, or a file to convert.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
) -> None:
    """Get a small real model to train (SmolLM2-135M-Instruct, Apache-2.0), or write a GGUF file as one to train."""
    from rise_train.models.fetching import convert, fetch_smollm2

    came = fetch_smollm2(output) if source == "smollm2" else convert(Path(source), output)
    typer.echo(f"{output}: {came}")


@app.command()
def ablate(
    config: Annotated[Path, typer.Argument(metavar="ABLATION.yaml", help="E.g. recipes/tiny/ablation.yaml.")],
    dataset: Annotated[Path | None, typer.Option(help="Instead of the file's `dataset`.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Instead of the file's `output_dir`.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings and evaluations at a time.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard earlier arms and start over.")] = False,
) -> None:
    """Train every arm on the same data and seeds, score all, and compare them.

    Writes `ablation.json` and `report.html`. What is done already is skipped, so a stopped run just goes on.
    """
    from rise_train.ablation.ablate import ablate as run

    run(config, dataset=dataset, output_dir=output, jobs=jobs, fresh=fresh)


@app.command()
def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUN|[NAME=]RESULT.json...", help="Runs of `rise ablate`, result files.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Page; of one run RUN/report.html.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also the tables in Markdown.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Also the tables in LaTeX.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also the metrics and tests.")] = None,
) -> None:
    """Compare results of `rise ablate`, `rise eval` or `rise bench`: each with the first."""
    from rise_train.ablation.reporting import report as write

    write(sources, output, markdown, latex, json_out)


@app.command()
def publish(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run, or the folder of a model or adapter.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: RUN/publish/ARM, or MODEL-publish.")
    ] = None,
    arm: Annotated[str, typer.Option(help="Which arm of the run.")] = "sft_dpo",
    merged: Annotated[bool, typer.Option("--merged", help="Publish an adapter merged into its base.")] = False,
    base_id: Annotated[str | None, typer.Option(help="Hub id of the base, where it was trained from a folder.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Its test prompts try the copy; default: the run's.")] = None,
    servers: Annotated[
        Path | None, typer.Option(help="The servers file of the data: none of its secrets may be in the folder.")
    ] = None,
    push: Annotated[
        bool, typer.Option("--push", help="Really upload. Without it nothing leaves this machine.")
    ] = False,
    repo_id: Annotated[str | None, typer.Option(help="With --push: NAME/MODEL on the Hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: make a new repository public.")] = False,
) -> None:
    """Write a folder that is ready for the Hub, and prove in a clean process that it loads and answers the same."""
    from rise_train.publishing.hub import ask
    from rise_train.publishing.publish import publish as write

    write(
        source,
        output,
        arm=arm,
        merged=merged,
        base_id=base_id,
        dataset=dataset,
        servers=servers,
        name=repo_id,
        push=ask(repo_id, private=not public) if push else None,
    )


@app.command()
def version() -> None:
    """Print the versions of rise-train and of what it builds on."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from rise_train import __version__

    typer.echo(f"rise-train {__version__} (Python {sys.version.split()[0]})")
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mcp"):
        try:
            typer.echo(f"{package} {installed(package)}")
        except PackageNotFoundError:
            typer.echo(f"{package} is not installed")


@app.command()
def quality(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="RUN/dataset, or BENCHMARK:FOLDER.")],
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the rates here.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Of each only so many examples, a seeded sample.")] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="URL#MODEL", help="Also have a model judge what no rule can tell.")
    ] = None,
) -> None:
    """Compare the quality of datasets by rule, and by a judge: names, values, repetitions, what the request says."""
    from eval.benchmarks.data_quality import data_quality
    from eval.scores.quality import PAPER, RULES
    from rise_train.commands.tables import show_judged, show_quality

    result = data_quality(datasets, json_out, limit, judge)
    show_quality(result["datasets"], PAPER, RULES)
    if judge is not None:
        show_judged(result["datasets"], PAPER)
    if json_out is not None:
        typer.echo(f"written to {json_out}")


def main(args: list[str] | None = None) -> None:
    """Entry point of `rise`. Exit status: 0 done, 2 the user can mend it, 130 interrupted, 1 anything else."""
    try:
        app(args, prog_name="rise")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
