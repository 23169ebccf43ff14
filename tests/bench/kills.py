"""`rise synth` killed at random moments: does the dataset come out the same to the byte, and is no answer paid twice?

    python tests/bench/kills.py both
    python tests/bench/kills.py llm --kills 5

Twenty kills of each take a quarter of an hour and more, so without an argument it does nothing, as in `make bench`.

For each author the command first runs in peace; then it runs again and again, and dies by `kill -9` at moments drawn
evenly from the time that the quickest whole run took. The same command follows each time, in the same folder, until it
ends by itself; then its `dataset/` is compared with the first one, and the next kill begins a new folder. The LLM
author asks the scripted endpoint of the tests, which looks at each request: is its answer, or its rejection, in the
run's cache already? (A request under way when its process is killed has no answer, and is asked again.)
"""

import argparse
import filecmp
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "synthesis")]

from endpoint import Model, Reply  # noqa: E402

from synthesis.authors.llm.prompting import FOLDER  # noqa: E402
from synthesis.llm.client import Endpoint  # noqa: E402
from synthesis.llm.prompt_files import version  # noqa: E402
from synthesis.seeds import digest  # noqa: E402

TINY = ROOT / "recipes" / "tiny"
SIZE = ["--positives", "24", "--negatives", "2"]
SMALL = (
    "from functools import partial; from synthesis import pipeline\n"
    "pipeline.synthesize = partial(pipeline.synthesize, per_tool=2)\n"
    "from rise_train.cli import main; main()"
)
"""The command line, with two calls of each tool."""
STAGES = ("primitives", "trajectories", "samples", "executions", "negatives")
LLM_SERVERS = ("time", "sqlite", "calculator")


class Watchful(Model):
    """The scripted model; counts requests whose answer the run has already."""

    run = Path()
    known = 0
    keys: set[str]

    def _next(self, body: str, headers: dict[str, str]) -> Reply:
        asked = json.loads(body)
        form = asked["response_format"]["json_schema"]
        replies = Endpoint("", max_tokens=asked["max_completion_tokens"]).replies
        parts = (asked["messages"][:2], form["schema"], replies, asked["seed"])
        key = digest(asked["model"], version(FOLDER, form["name"]), *parts, length=32)
        rejected = self.run / "llm_rejected.jsonl"
        answered = (self.run / "llm_cache" / key[:2] / f"{key}.json").exists()
        self.keys.add(key)
        self.known += answered or (rejected.exists() and key in rejected.read_text())
        return super()._next(body, headers)


@dataclass
class Tally:
    """What happened to one author."""

    kills: int = 0
    rounds: int = 0
    differing: list[str] = field(default_factory=list)
    where: Counter[str] = field(default_factory=Counter)
    """Kills by the last stage that had written something."""


def command(servers: Path, run: Path, more: Sequence[str]) -> list[str]:
    """`rise synth`, from this checkout."""
    return [sys.executable, "-c", SMALL, "synth", str(servers), "-o", str(run), *SIZE, *more]


def torment(servers: Path, folder: Path, more: Sequence[str], kills: int, model: Watchful | None = None) -> Tally:
    """Run in peace once, then with kills; see the module."""
    tally, rng = Tally(), random.Random(20)
    reference, seconds = folder / "peace", math.inf
    run = reference
    while True:
        if model:
            model.run = run
        with (folder / "log").open("wb") as log:
            whole, started = not run.exists(), time.monotonic()
            process = subprocess.Popen(command(servers, run, more), cwd=ROOT, stdout=log, stderr=log)
            try:
                left = rng.uniform(0, seconds) if tally.kills < kills and tally.rounds else None
                status = process.wait(left)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                tally.kills += 1
                tally.where[_stage(run)] += 1
                continue
        if status:
            raise SystemExit((folder / "log").read_text())
        if whole:
            seconds = min(seconds, time.monotonic() - started)
        tally.differing += differing(reference / "dataset", run / "dataset")
        tally.rounds += 1
        if tally.kills == kills:
            return tally
        run = folder / f"round{tally.rounds}"
        print(f"  {tally.kills} of {kills} kills, {tally.rounds} runs to the end", file=sys.stderr, flush=True)


def _stage(run: Path) -> str:
    written = [name for name in STAGES if (file := run / f"{name}.jsonl").exists() and file.stat().st_size]
    return written[-1] if written else "start"


def differing(first: Path, second: Path) -> list[str]:
    """Files that are not the same to the byte, or only in one of the folders."""
    files = [(folder, path) for folder in (first, second) for path in folder.rglob("*") if path.is_file()]
    names = {str(path.relative_to(folder)) for folder, path in files}
    _, unlike, missing = filecmp.cmpfiles(first, second, sorted(names), shallow=False)
    return [f"{second.parent.name}/{name}" for name in [*unlike, *missing]]


def llm_servers(folder: Path) -> Path:
    """Some of the shipped servers, in a file of their own."""
    shipped = json.loads((TINY / "mcp.json").read_text())
    entries = {name: shipped["mcpServers"][name] for name in LLM_SERVERS}
    for entry in entries.values():
        entry["command"] = str(TINY / entry["command"])
    sandbox = {name: str(TINY / path) for name, path in shipped["rise"]["sandbox"].items()}
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": entries, "rise": {"sandbox": sandbox}}))
    return path


def report(name: str, tally: Tally) -> None:
    """One line, and what differs."""
    after = ", ".join(f"{count} in {stage}" for stage, count in sorted(tally.where.items()))
    print(f"{name}: {tally.kills} kills ({after}), {tally.rounds - 1} runs to the end after them, ", end="")
    print(f"{len(tally.differing)} files of their datasets differ {tally.differing[:5]}", flush=True)


def main() -> None:
    """Both authors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("author", choices=("offline", "llm", "both"), nargs="?")
    parser.add_argument("--kills", type=int, default=20)
    chosen = parser.parse_args()
    if chosen.author is None:
        print("kills: takes long; run it by `python tests/bench/kills.py both`")
        return
    os.environ["TEST_KEY"] = "none"
    found: list[Tally] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.author != "llm":
            (folder / "offline").mkdir()
            found.append(torment(TINY / "mcp.json", folder / "offline", [], chosen.kills))
            report("offline author", found[-1])
        if chosen.author != "offline":
            (folder / "llm").mkdir()
            with Watchful(delay_s=0.02) as model:
                model.keys = set()
                asking = ["--author", "llm", "--model", "m-1", "--base-url", model.url, "--api-key-env", "TEST_KEY"]
                found.append(torment(llm_servers(folder), folder / "llm", asking, chosen.kills, model))
                report("LLM author", found[-1])
                print(f"LLM author: {len(model.bodies)} requests, {model.known} of them answered before in their run")
                answers = {path.stem for path in (model.run / "llm_cache").glob("*/*.json")}
                assert answers, "no answer was kept"
                assert answers <= model.keys, "this script works out other keys than the client"
    if any(tally.differing for tally in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
