"""The whole synthesis in order: servers, primitives, trajectories, samples, negatives, executions, dataset.

A run directory holds one journal a stage, `manifest.json` and `dataset/`. The journals are the state: the same command
again does only what is missing, after `kill -9` too.
"""

import asyncio
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from synthesis.calls import primitives
from synthesis.calls.circuit import Circuit
from synthesis.calls.primitives import Policy, Progress
from synthesis.dataset import rows as dataset
from synthesis.dataset.holdout import held_out_tools
from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.json_file import write_json
from synthesis.llm.costs import Costs
from synthesis.negatives import added_kinds as further
from synthesis.negatives import complexity, mutations
from synthesis.negatives.executions import ExecutedCall, Executor, Outcomes, unexecuted
from synthesis.negatives.negate import negate
from synthesis.progress import stage
from synthesis.records import Json, Negative, Primitive, Sample, Tool, Trajectory
from synthesis.requests import samples
from synthesis.rundir import Config, open_run
from synthesis.servers.licenses import licenses_of
from synthesis.text.embedding import available
from synthesis.trajectories import execute as trajectories

if TYPE_CHECKING:
    from synthesis.authors.base import Author
    from synthesis.llm.client import ModelOptions
    from synthesis.servers.cassettes import CassetteServers
    from synthesis.servers.mcp_config import ServersFile
    from synthesis.servers.server_set import Servers
    from synthesis.text.lexicon import Words

PER_TOOL = 12
"""Candidate calls tried for each tool, at least."""
POSITIVES_PER_CANDIDATE = 130
"""For more positives than this times `PER_TOOL`, more calls of each tool are tried: else most calls of the test split
would stand in train too, inside other requests."""
MAX_WORKERS = 2
"""Sets of servers that run side by side, where there are as many processor cores; the data does not depend on it."""
REQUESTS_PER_TRAJECTORY = 2
SPARE = 2
"""Spare candidates for one negative, to take the place of those that do the same as the right call, or err."""
PACKAGES = ("datasets", "jsonschema", "mcp", "pyarrow", "pydantic")

RecordT = TypeVar("RecordT", bound=BaseModel)


@dataclass(frozen=True)
class Summary:
    """What a run made. `counts` is the table of `manifest.json`."""

    run: Path
    counts: dict[str, Json]
    seconds: float
    already_done: bool = False
    """The run was complete before; nothing was called."""


@dataclass
class _Run:
    """One run in progress: where it writes, what it was asked for, and how long its stages took."""

    folder: Path
    config: Config
    author: "Author"
    cassette: Path | None = None
    records: bool = False
    """The cassette is recorded, not replayed."""
    files: ExitStack = field(default_factory=ExitStack)
    seconds: dict[str, float] = field(default_factory=dict)
    costs: Costs | None = None
    """The ledger of an author that costs money."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the run is interrupted: a stage in a thread ends at its next report."""

    def journal(self, name: str, record_type: type[RecordT]) -> Journal[RecordT]:
        return self.files.enter_context(Journal(self.folder / f"{name}.jsonl", record_type))

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        started = time.monotonic()
        try:
            with stage(name) as progress:

                def report(done: int, total: int, what: str) -> None:
                    if self.stopped.is_set():
                        raise InterruptedError
                    progress(done, total, what)

                yield report
        finally:
            if self.costs and (line := self.costs.line(name)):
                print(line, file=sys.stderr, flush=True)
        self.seconds[name] = round(time.monotonic() - started, 1)


def synthesize(
    servers_file: Path,
    run: Path,
    *,
    seed: int = 0,
    positives: int = 1600,
    negatives: int = 4,
    author: str = "offline",
    llm: "ModelOptions | None" = None,
    fresh: bool = False,
    tools_per_prompt: int = 4,
    result_chars: int = 200,
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
    `kinds` are the kinds of negatives: "paper" for the paper's, "all" for three more
    (`synthesis.negatives.added_kinds`). Without `execute` no tool is asked what it says to them, which saves most of
    the time of a run. `embeddings` scores them by the meaning of texts (`synthesis.negatives.complexity`), `wordnet`
    lets the offline author take deviating words from an installed WordNet too, and `neighbours` from what is near a
    word by embedding.

    `record` is a cassette that all answers are written to, `replay` one that they are read from: then no server runs.

    `llm` says which model the author of that name asks, and its limits; limits and prices may change between commands.

    Raises `UserError` for what the user can mend: a broken servers file, a server that does not start, a run made with
    another configuration.
    """
    started = time.monotonic()
    per_tool = max(PER_TOOL, positives // POSITIVES_PER_CANDIDATE) if per_tool is None else per_tool
    _check(positives=positives, negatives=negatives, tools_per_prompt=tools_per_prompt, per_tool=per_tool)
    if record is not None and replay is not None:
        raise UserError("--record, --replay: expected one of them, or neither.")
    from synthesis.servers.server_set import load_servers

    _check_author(author, llm)
    if kinds not in ("paper", "all"):
        raise UserError(f"--kinds: expected 'paper' or 'all', not {kinds!r}.")
    for option in ["--embeddings"] * embeddings + ["--neighbours"] * neighbours:
        if not available():
            raise UserError(f"{option}: the encoder is not installed; get it by pip install 'rise-train[embeddings]'.")
    database, words = _words(author, wordnet, neighbours)
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
        wordnet=database,
        neighbours=neighbours,
        model=llm.endpoint.model if llm else "",
        base_url=llm.endpoint.base_url if llm else "",
    )
    manifest = open_run(run, config, fresh)
    if manifest["complete"] and (run / "dataset").is_dir():
        return Summary(run, manifest["counts"], time.monotonic() - started, already_done=True)
    with ExitStack() as files:
        writer, costs = _author(llm, run, seed, file, files, words)
        work = _Run(run, config, writer, record or replay, record is not None, files=files, costs=costs)
        counts = asyncio.run(_make(work, file, manifest))
    return Summary(run, counts, time.monotonic() - started)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected 1 or more, not {value}.")


def _check_author(name: str, llm: "ModelOptions | None") -> None:
    if name not in ("offline", "llm"):
        raise UserError(f"--author: expected 'offline' or 'llm', not {name!r}.")
    if (name == "llm") != (llm is not None):
        raise UserError("--model: expected together with --author llm, and only there.")
    if llm is not None:
        llm.check()


def _words(author: str, wordnet: bool, neighbours: bool) -> tuple[str, "Words | None"]:
    """The version of the WordNet database, or nothing, and where deviating words come from if not the lexicon alone."""
    from synthesis.text.lexicon import Words, lexicon
    from synthesis.text.neighbours import Neighbours
    from synthesis.text.wordnet import WordNet, find

    for option in ["--wordnet"] * wordnet + ["--neighbours"] * neighbours:
        if author != "offline":
            raise UserError(f"{option}: expected with the offline author only.")
    database = WordNet(find(), lexicon()) if wordnet else None
    words: Words | None = Neighbours(database or lexicon()) if neighbours else database
    return database.version if database else "", words


def _author(
    llm: "ModelOptions | None",
    run: Path,
    seed: int,
    file: "ServersFile",
    files: ExitStack,
    words: "Words | None",
) -> tuple["Author", Costs | None]:
    """The author, and the ledger of one that costs money; `files` closes what they write."""
    if llm is None:
        from synthesis.authors.offline.author import OfflineAuthor
        from synthesis.authors.offline.guesses import template_files

        return OfflineAuthor(files=template_files(file.template), words=words), None
    from synthesis.authors.llm.author import open_author

    author = open_author(llm, run, seed, file.template, files)
    return author, author.costs


async def _make(run: _Run, file: "ServersFile", manifest: dict[str, Json]) -> dict[str, Json]:
    """All stages; returns the counts. The servers run no longer than calls are made."""
    calls = run.journal("primitives", Primitive)
    async with AsyncExitStack() as running:
        pool = await _start(run, file, running)
        _remember(run, manifest, pool[0], licenses_of(file.servers))
        fields = {entry.name: entry.rise.field for entry in file.servers}
        held_out = held_out_tools(run.config.hold_out, pool[0].tools, fields)
        policies = _policies(file)
        done = await _call(run, policies, pool, calls, manifest)
        source = replace(await _aside(run, pool[0].tools, done, calls), held_out=held_out)
        stateless = frozenset(entry.name for entry in file.servers if entry.rise.state == "none")
        outcomes = await _execute(run, policies, stateless, pool, source)
    source = replace(source, negatives=outcomes.kept)
    with run.stage("dataset") as progress:
        facts = {"isolation": pool[0].isolation, "seed": run.config.seed, "author": run.author.name}
        facts |= {
            "text deviation": "cosine distance, all-MiniLM-L6-v2" if run.config.embeddings else "words and letters"
        }
        sources = [f"WordNet {run.config.wordnet}"] * bool(run.config.wordnet)
        sources += ["nearest neighbours by all-MiniLM-L6-v2"] * run.config.neighbours
        facts |= {"words from": ", ".join(sources)} if sources else {}
        facts |= {"held out": ", ".join(run.config.hold_out)} if run.config.hold_out else {}
        facts |= {f"server {name}": number for name, number in pool[0].versions.items()}
        facts |= {f"server {name} was given up": why for name, why in manifest["servers_given_up"].items()}
        counts = dataset.write(source, run.folder / "dataset", mutations.apply, facts, outcomes.tables())
        progress(len(source.samples), len(source.samples), "")
    counts["primitives"] = primitive_counts(calls)
    costs = {"costs": run.costs.table()} if run.costs else {}
    write_json(
        run.folder / "manifest.json", {**manifest, "complete": True, "counts": counts, "seconds": run.seconds, **costs}
    )
    return counts


async def _start(run: _Run, file: "ServersFile", running: AsyncExitStack) -> "list[Servers | CassetteServers]":
    """Start the servers, as many times as they are to work side by side; each set has its own sandbox.

    With a cassette one set works alone, so that the calls come in one order.
    """
    from synthesis.servers.cassettes import CassetteServers
    from synthesis.servers.server_set import Servers

    pool: list[Servers | CassetteServers] = []
    with run.stage("servers") as progress:
        if run.cassette is not None:
            live = Servers(file) if run.records else None
            pool.append(await running.enter_async_context(CassetteServers(run.cassette, file, live)))
            progress(1, 1, "sets started")
            return pool
        count = min(MAX_WORKERS, os.cpu_count() or 1)
        for number in range(1, count + 1):
            pool.append(await running.enter_async_context(Servers(file)))
            progress(number, count, "sets started")
    return pool


def _remember(
    run: _Run, manifest: dict[str, Json], servers: "Servers | CassetteServers", licenses: dict[str, str]
) -> None:
    """Note versions, licences and tool schemas in the manifest; refuse to go on where tools are not as at the start."""
    facts: dict[str, Json] = {
        "servers": servers.versions,
        "tools": {name: tool.schema_hash for name, tool in servers.tools.items()},
        "isolation": servers.isolation,
    }
    for key in ("servers", "tools"):
        if key in manifest and manifest[key] != facts[key]:
            old, new = manifest[key], facts[key]
            changed = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
            raise UserError(
                f"{run.folder}: {key} changed since the run began ({', '.join(changed[:5])}); start over with --fresh."
            )
    packages = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    manifest |= {**facts, "licenses": licenses, "packages": packages}
    write_json(run.folder / "manifest.json", manifest)


def _policies(file: "ServersFile") -> dict[str, Policy]:
    return {entry.name: Policy(tuple(entry.rise.errors), entry.rise.state == "memory") for entry in file.servers}


async def _call(
    run: _Run,
    policies: dict[str, Policy],
    pool: "Sequence[Servers | CassetteServers]",
    calls: Journal[Primitive],
    manifest: dict[str, Json],
) -> list[Trajectory]:
    """The stages that call servers: primitives, then trajectories."""
    config = run.config
    with run.stage("primitives") as progress:
        await primitives.collect(
            pool, policies, run.author, calls, per_tool=config.per_tool, seed=config.seed, progress=progress
        )
    await _give_up(run, pool, calls, manifest)
    with run.stage("trajectories") as progress:
        return await trajectories.generate(
            pool,
            policies,
            calls,
            run.journal("trajectories", Trajectory),
            run.journal("trajectories_rejected", trajectories.RejectedTrajectory),
            count=-(-config.positives // REQUESTS_PER_TRAJECTORY),
            seed=config.seed,
            result_chars=config.result_chars,
            progress=progress,
        )


async def _give_up(
    run: _Run, pool: "Sequence[Servers | CassetteServers]", calls: Journal[Primitive], manifest: dict[str, Json]
) -> None:
    """Go on without the servers that kept dying, and say so: on stderr, in the manifest, and in the card."""
    circuit = Circuit.of(calls, pool[0].tools)
    lost = circuit.servers()
    manifest |= {"servers_given_up": lost, "tools_given_up": circuit.given_up()}
    write_json(run.folder / "manifest.json", manifest)
    for tool, why in circuit.given_up().items():
        print(f"tool {tool} was given up: {why}.", file=sys.stderr)
    for name, why in lost.items():
        words = next((words for servers in pool if (words := servers.last_words(name))), "")
        print(f"server {name} was given up, its data is left out: {why}. {words}".strip(), file=sys.stderr)
        for servers in pool:
            await servers.give_up(name)
    if not pool[0].tools:
        raise UserError(
            f"{run.folder / 'manifest.json'}: every server was given up ({'; '.join(map(': '.join, lost.items()))})."
        )


async def _aside(
    run: _Run, tools: dict[str, Tool], done: list[Trajectory], calls: Iterable[Primitive]
) -> dataset.Source:
    """`_write` in a thread: while a slow model is asked, the servers' tasks go on."""
    try:
        return await asyncio.to_thread(_write, run, tools, done, calls)
    except asyncio.CancelledError:
        run.stopped.set()
        raise


def _write(run: _Run, tools: dict[str, Tool], done: list[Trajectory], calls: Iterable[Primitive]) -> dataset.Source:
    """The stages that write text: samples, then candidates for negatives."""
    config = run.config
    if not done:
        raise UserError(f"{run.folder / 'primitives.jsonl'}: no call succeeded, so there is nothing to learn from.")
    with run.stage("samples") as progress:
        made = samples.compose(
            done,
            tools,
            run.author,
            run.journal("samples", Sample),
            run.journal("samples_rejected", samples.RejectedSample),
            count=config.positives,
            seed=config.seed,
            progress=progress,
        )
    by_id = {trajectory.id: trajectory for trajectory in done}
    with run.stage("negatives") as progress:
        negatives = negate(
            made,
            by_id,
            tools,
            run.author,
            count=config.negatives,
            seed=config.seed,
            further=mutations.paper_only if config.kinds == "paper" else further.proposer(tools, calls, config.seed),
            spare=SPARE * config.negatives,
            distance=complexity.meaning if config.embeddings else complexity.surface,
            progress=progress,
        )
    return dataset.Source(tools, by_id, made, negatives, config.seed, config.tools_per_prompt)


async def _execute(
    run: _Run,
    policies: dict[str, Policy],
    stateless: frozenset[str],
    pool: "Sequence[Servers | CassetteServers]",
    source: dataset.Source,
) -> Outcomes:
    """Execute the candidates if that is wanted, and write those that are negatives."""
    if not run.config.execute:
        return _written(run, source, unexecuted(source.negatives, run.config.negatives))
    executor = Executor(pool, policies, stateless, run.journal("executions", ExecutedCall), run.config.result_chars)
    with run.stage("executions") as progress:
        outcomes = await executor.verify(
            source.samples, source.negatives, source.trajectories, count=run.config.negatives, progress=progress
        )
    return _written(run, source, outcomes)


def _written(run: _Run, source: dataset.Source, outcomes: Outcomes) -> Outcomes:
    """Write the negatives that are kept, in the order of the samples."""
    written = run.journal("negatives", Negative)
    for negative in (negative for sample in source.samples for negative in outcomes.kept[sample.id]):
        if negative.id not in written:
            written.append(negative)
    return outcomes


def primitive_counts(calls: Iterable[Primitive]) -> dict[str, Json]:
    """How many candidates were accepted, not repeatable, and rejected, the latter by the rule that fired."""
    records = list(calls)
    accepted = [record for record in records if record.verdict == "ok"]
    reasons = Counter(record.reason.split(":")[0] for record in records if record.verdict == "rejected")
    return {
        "tried": len(records),
        "accepted": len(accepted),
        "not_deterministic": sum(not record.deterministic for record in accepted),
        "tools_accepted": len({record.tool for record in accepted}),
        "rejected_by_rule": dict(sorted(reasons.items())),
    }
