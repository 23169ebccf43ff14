"""The whole synthesis in order: servers, primitives, trajectories, samples, negatives, executions, dataset.

A run directory holds one journal a stage, `manifest.json` and `dataset/`. The journals are the state: the same command
again does only what is missing, after `kill -9` too.
"""

import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from synthesis.authors.base import Author
from synthesis.authors.llm.author import open_author
from synthesis.authors.offline.author import OfflineAuthor
from synthesis.calls.primitives import count_calls, primitives_stage
from synthesis.dataset.holdout import held_out_tools
from synthesis.dataset.writing import dataset_stage
from synthesis.errors import UserError
from synthesis.llm.client import ModelOptions
from synthesis.llm.costs import Costs
from synthesis.lock import locked
from synthesis.negatives.executions import executions_stage
from synthesis.negatives.negate import negatives_stage
from synthesis.records import Json, Primitive
from synthesis.requests.samples import RejectedSample, samples_stage
from synthesis.run import Run
from synthesis.rundir import Config, open_run, written_by
from synthesis.servers.licenses import licenses_of
from synthesis.servers.mcp_config import ServersFile, load_servers
from synthesis.servers.pool import start_pool
from synthesis.servers.sandbox.workspace import template_files
from synthesis.surprises import is_surprise
from synthesis.text.embedding import available
from synthesis.text.lexicon import Words, lexicon
from synthesis.text.neighbours import Neighbours
from synthesis.text.wordnet import WordNet, find
from synthesis.trajectories.execute import RejectedTrajectory, trajectories_stage

STAGES: tuple[Callable[[Run], Awaitable[None]], ...] = (
    primitives_stage,
    trajectories_stage,
    samples_stage,
    negatives_stage,
    executions_stage,
)
"""Those for which the servers run, in their order. Then `dataset_stage` writes what they made."""
PER_TOOL = 12
"""Candidate calls tried for each tool, at least."""
POSITIVES_PER_CANDIDATE = 130
"""For more positives than this times `PER_TOOL`, more calls of each tool are tried: else most calls of the test split
would stand in train too, inside other requests."""
MAX_WORKERS = 2
"""Sets of servers that run side by side, where there are as many processor cores; the data does not depend on it."""
PACKAGES = ("datasets", "jsonschema", "mcp", "pyarrow", "pydantic")


@dataclass(frozen=True)
class Summary:
    """What a run made. `counts` is the table of `manifest.json`."""

    run: Path
    counts: dict[str, Json]
    seconds: float
    already_done: bool = False
    """The run was complete before; nothing was called."""
    advice: tuple[str, ...] = ()
    """What the data lacks, and what to set, a sentence each."""


def synthesize(
    servers_file: Path,
    run: Path,
    *,
    seed: int = 0,
    positives: int = 1600,
    negatives: int = 4,
    author: str = "offline",
    llm: ModelOptions | None = None,
    fresh: bool = False,
    tools_per_prompt: int = 4,
    result_chars: int = 300,
    per_tool: int | None = None,
    hold_out: Sequence[str] = (),
    kinds: str = "all",
    embeddings: bool = False,
    wordnet: bool = False,
    neighbours: bool = False,
    execute: bool = True,
    record: Path | None = None,
    replay: Path | None = None,
) -> Summary:
    """Make a dataset from the servers in `servers_file`; everything goes to the folder `run`.

    `positives` is the number of samples, `negatives` the most that one decision turn gets, `per_tool` the candidate
    calls tried for each tool, `hold_out` what only test may know (`synthesis.dataset.holdout`). The same arguments
    again do only what is missing; other arguments on the same folder are refused unless `fresh`, which starts over.
    `kinds` are the kinds of negatives: "paper" for the paper's, "all" for four more
    (`synthesis.negatives.added_kinds`). Without `execute` no tool is asked what it says to them, which saves most of
    the time of a run. `embeddings` scores them by the meaning of texts (`synthesis.negatives.distances`), `wordnet`
    lets the offline author take deviating words from an installed WordNet too, and `neighbours` from what is near a
    word by embedding.

    `record` is a cassette that all answers are written to, `replay` one that they are read from: then no server runs.

    `llm` says which model the author of that name asks, and its limits; limits and prices may change between commands.

    Raises `UserError` for what the user can mend: a broken servers file, a server that does not start, a run made with
    another configuration.
    """
    started = time.monotonic()
    per_tool = max(PER_TOOL, positives // POSITIVES_PER_CANDIDATE) if per_tool is None else per_tool
    _check_numbers(positives=positives, negatives=negatives, tools_per_prompt=tools_per_prompt, per_tool=per_tool)
    _check_author(author, llm, wordnet, neighbours)
    if record is not None and replay is not None:
        raise UserError("--record, --replay: expected one of them, or neither.")
    if kinds not in ("paper", "all"):
        raise UserError(f"--kinds: expected 'paper' or 'all', not {kinds!r}.")
    for option in ["--embeddings"] * embeddings + ["--neighbours"] * neighbours:
        if not available():
            raise UserError(f"{option}: the encoder is not installed; get it by pip install 'rise-train[embeddings]'.")
    database = WordNet(find(), lexicon()) if wordnet else None
    words: Words | None = Neighbours(database or lexicon()) if neighbours else database
    file = load_servers(servers_file)
    config = Config(
        seed=seed,
        positives=positives,
        negatives=negatives,
        author=author,
        tools_per_prompt=tools_per_prompt,
        result_chars=result_chars,
        per_tool=per_tool,
        servers=file.fingerprint,
        hold_out=tuple(sorted(set(hold_out))),
        kinds=kinds,
        execute=execute,
        embeddings=embeddings,
        wordnet=database.version if database else "",
        neighbours=neighbours,
        model=llm.endpoint.model if llm else "",
        base_url=llm.endpoint.base_url if llm else "",
        replies=llm.endpoint.replies if llm else "",
        version=written_by(),
    )
    if run.exists() and not run.is_dir():
        raise UserError(f"{run}: expected a folder for the run, but it is a file.")
    with locked(run, "`rise synth`"), ExitStack() as files:
        manifest = open_run(run, config, fresh)
        if manifest["complete"] and (run / "dataset").is_dir():
            seconds, advice = time.monotonic() - started, tuple(manifest.get("advice", ()))
            return Summary(run, manifest["counts"], seconds, already_done=True, advice=advice)
        writer, costs = _author(llm, run, seed, file, files, words)
        work = Run(run, config, manifest, file, writer, files, costs)
        asyncio.run(_make(work, record, replay))
    return Summary(run, work.counts, time.monotonic() - started, advice=tuple(work.manifest["advice"]))


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected 1 or more, not {value}.")


def _check_author(name: str, llm: ModelOptions | None, wordnet: bool, neighbours: bool) -> None:
    if name not in ("offline", "llm"):
        raise UserError(f"--author: expected 'offline' or 'llm', not {name!r}.")
    if (name == "llm") != (llm is not None):
        raise UserError("--model: expected together with --author llm, and only there.")
    if llm is not None:
        llm.check()
    for option in ["--wordnet"] * wordnet + ["--neighbours"] * neighbours:
        if name != "offline":
            raise UserError(f"{option}: expected with the offline author only.")


def _author(
    llm: ModelOptions | None, run: Path, seed: int, file: ServersFile, files: ExitStack, words: Words | None
) -> tuple[Author, Costs | None]:
    """The author, and the ledger of one that costs money; `files` closes what they write."""
    paths = template_files(file.template)
    if llm is None:
        return OfflineAuthor(files=paths, words=words), None
    author = open_author(llm, run, seed, paths, files)
    return author, author.costs


async def _make(run: Run, record: Path | None, replay: Path | None) -> None:
    """All stages. The servers run no longer than calls are made."""
    async with AsyncExitStack() as running:
        with run.stage("servers") as progress:
            sets = min(MAX_WORKERS, os.cpu_count() or 1)
            run.pool = await start_pool(run.file, running, sets=sets, record=record, replay=replay, progress=progress)
        _tell_left_out(run)
        _remember(run)
        fields = {entry.name: entry.rise.field for entry in run.file.servers}
        run.held_out = held_out_tools(run.config.hold_out, run.tools, fields)
        for stage in STAGES:
            await stage(run)
    await dataset_stage(run)
    run.counts["primitives"] = count_calls(run.journal("primitives", Primitive))
    costs = {"costs": run.costs.table()} if run.costs else {}
    run.note(complete=True, counts=run.counts, seconds=run.seconds, advice=_advice(run), **costs)


def _advice(run: Run) -> list[str]:
    """What the data lacks, and what to set: said where the run says that it is done."""
    found, counts, refused = [], run.counts, run.pool[0].refused
    if len(refused) > len(run.tools):
        names = ", ".join(sorted(tool.full_name for tool in refused)[:3])
        found.append(
            f"only {len(run.tools)} of {len(run.tools) + len(refused)} tools may run; the others ({names}, ...) are "
            "not marked read-only: name those that may run in the sandbox in `rise.allow` of their server"
        )
    if counts["positives"] < run.config.positives:
        found.append(
            f"{counts['positives']} positives instead of {run.config.positives}: the calls that worked allow no more; "
            "allow more tools, or try more calls of each"
        )
    if empty := [
        f"{table}/{side}" for table in ("sft", "preference") for side, rows in counts[table].items() if not rows
    ]:
        found.append(f"no rows in {', '.join(empty)}: ask for more by --positives, or allow more tools by `rise.allow`")
    if not counts["negatives"]:
        found.append(
            "there are no negatives, so nothing for DPO: no call that worked has a parameter whose value the user says "
            "and that could be another"
        )
    if surprises := _surprises(run):
        found.append(
            f"{len(surprises)} candidates were left out by a fault of rise-train, please report it; the first: "
            f"{surprises[0]}"
        )
    return found


def _surprises(run: Run) -> list[str]:
    """Faults of this program that a candidate met, by what each cost."""
    journals = (
        run.journal("primitives", Primitive),
        run.journal("trajectories_rejected", RejectedTrajectory),
        run.journal("samples_rejected", RejectedSample),
    )
    return run.surprises + [record.reason for records in journals for record in records if is_surprise(record.reason)]


def _tell_left_out(run: Run) -> None:
    """Say which tools cannot be used, and why. Raises `UserError` where there is none that may be called."""
    servers = run.pool[0]
    for name, why in servers.unusable.items():
        print(f"left out: {name}: {why}", file=sys.stderr, flush=True)
    if not servers.tools:
        raise UserError(
            f"{run.file.path}: no tool may be called: of {len(servers.refused)} tools none is marked read-only "
            "(`readOnlyHint`) or named in its server's `rise.allow`"
            + (f", and {len(servers.unusable)} cannot be used." if servers.unusable else ".")
        )


def _remember(run: Run) -> None:
    """Note versions, licences and tool schemas in the manifest; refuse to go on where tools are not as at the start."""
    facts: dict[str, Json] = {
        "servers": run.pool[0].versions,
        "tools": {name: tool.schema_hash for name, tool in run.tools.items()},
        "isolation": run.pool[0].isolation,
        "tools_left_out": run.pool[0].unusable,
    }
    for key in ("servers", "tools"):
        if key in run.manifest and run.manifest[key] != facts[key]:
            old, new = run.manifest[key], facts[key]
            changed = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
            raise UserError(
                f"{run.folder}: {key} changed since the run began ({', '.join(changed[:5])}); start over with --fresh."
            )
    packages = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    run.note(**facts, licenses=licenses_of(run.file.servers), packages=packages)
