"""The whole synthesis on real MCP servers: complete, repeatable to the byte, and safe to kill."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from fakes import FakeAuthor
from runs import ROOT, SERVERS, hashes, servers_file

from synthesis import pipeline
from synthesis.errors import UserError
from synthesis.lock import locked
from synthesis.pipeline import Summary, synthesize
from synthesis.run import Run
from synthesis.rundir import Config, open_run
from synthesis.servers.mcp_config import ServersFile

WANTED: dict[str, Any] = {"positives": 40, "negatives": 3, "per_tool": 6}

pytestmark = pytest.mark.skipif(not (ROOT / ".servers").is_dir(), reason="the MCP servers are not set up: make setup")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("made")
    return synthesize(servers_file(folder), folder / "run", **WANTED)


def test_all_stages_leave_their_records(made: Summary) -> None:
    run = made.run
    assert made.counts["positives"] == 40
    assert made.counts["servers"] == 3
    assert made.counts["negatives"] > 60
    primitives = {row["id"]: row for row in lines(run / "primitives.jsonl")}
    trajectories = {row["id"]: row for row in lines(run / "trajectories.jsonl")}
    samples = {row["id"]: row for row in lines(run / "samples.jsonl")}
    for negative in lines(run / "negatives.jsonl"):
        trajectory = trajectories[samples[negative["sample_id"]]["trajectory_id"]]
        assert negative["primitive_ids"]
        for key in negative["primitive_ids"]:
            assert primitives[key]["verdict"] == "ok"
            assert key in {step["primitive_id"] for step in trajectory["steps"]}
        assert negative["executed"] in ("covert", "overt")
    assert sum(made.counts["executed_by_server"]["time"].values()) > 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["counts"] == made.counts
    assert set(manifest["servers"]) == set(SERVERS)
    assert set(manifest["tools"]) == {row["tool"] for row in primitives.values()}
    assert {"mcp", "datasets", "python"} <= set(manifest["packages"])
    assert manifest["licenses"]["time"] == "MIT"


def test_the_dataset_reads_with_datasets_alone(made: Summary) -> None:
    sft, preference = (load_from_disk(str(made.run / "dataset" / name)) for name in ("sft", "preference"))
    assert set(sft) == set(preference) == {"train", "test"}
    assert len(sft["train"]) + len(sft["test"]) == 40
    ids = {row["meta"]["id"] for row in sft["test"]}
    assert {row["meta"]["sample_id"] for row in preference["test"]} <= ids
    assert not {row["meta"]["sample_id"] for row in preference["train"]} & ids
    text = json.dumps([*sft["train"], *sft["test"]])
    assert str(ROOT) not in text
    assert "rise-" not in text, "no path of the sandbox"


def test_nothing_is_done_twice(made: Summary) -> None:
    before = hashes(made.run)
    again = synthesize(made.run.parent / "mcp.json", made.run, **WANTED)
    assert again.already_done
    assert again.counts == made.counts
    assert hashes(made.run) == before


def test_another_configuration_is_refused_unless_fresh(
    made: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    with pytest.raises(UserError, match=r"another configuration \(seed: 0 -> 1\).*--fresh"):
        synthesize(made.run.parent / "mcp.json", made.run, **WANTED, seed=1)
    run = tmp_path / "run"
    open_run(run, replace(_fresh_run(tmp_path).config, positives=99), fresh=False)
    (run / "primitives.jsonl").write_text("not a record")
    (run / "notes.txt").write_text("mine")
    fresh = synthesize(made.run.parent / "mcp.json", run, positives=5, per_tool=1, fresh=True)
    assert fresh.counts["positives"] == 5
    assert (run / "notes.txt").read_text() == "mine"


def test_killed_at_any_stage_and_resumed_it_ends_the_same(made: Summary, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = (
        "import sys; from pathlib import Path; from synthesis import pipeline\n"
        "pipeline.MAX_WORKERS = 1  # the other run had two: the data does not depend on it\n"
        f"pipeline.synthesize(Path(sys.argv[1]), Path(sys.argv[2]), **{WANTED!r})"
    )
    command = [sys.executable, "-c", script, str(made.run.parent / "mcp.json"), str(run)]
    for name, size in (("primitives", 20), ("trajectories", 6), ("executions", 30)):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
            _wait_for_lines(run / f"{name}.jsonl", size, process)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (run / "dataset").exists()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    assert hashes(run / "dataset") == hashes(made.run / "dataset")
    assert _without_latency(run) == _without_latency(made.run)


def _wait_for_lines(path: Path, size: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists() or path.read_bytes().count(b"\n") < size:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _without_latency(run: Path) -> list[dict[str, Any]]:
    rows = [{**row, "latency_ms": 0} for row in lines(run / "primitives.jsonl")]
    return sorted(rows, key=lambda row: row["id"])


def faulty(**options: Any) -> dict[str, Any]:
    script = Path(__file__).parent / "faulty" / "server.py"
    return {"command": sys.executable, "args": [str(script)], "rise": options}


def test_servers_that_die_or_hang_cost_only_their_own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_WORKERS", 1)
    bad = faulty(allow=["die", "hang"], timeout_s=0.5)
    made = synthesize(servers_file(tmp_path, zz=bad), tmp_path / "run", positives=10, negatives=2, per_tool=2)
    assert made.counts["positives"] == 10
    reasons = {
        row["tool"]: row["reason"] for row in lines(tmp_path / "run" / "primitives.jsonl") if row["server"] == "zz"
    }
    assert "the server died" in reasons["zz__die"]
    assert "hang" in reasons["zz__hang"]


def test_without_executions_the_tools_are_not_asked(made: Summary, tmp_path: Path) -> None:
    plain = synthesize(servers_file(tmp_path), tmp_path / "run", **WANTED, execute=False)
    assert not (plain.run / "executions.jsonl").exists()
    negatives = lines(plain.run / "negatives.jsonl")
    assert negatives
    assert all(negative["executed"] is None for negative in negatives)
    assert plain.counts["positives"] == made.counts["positives"]
    assert "not executed: no tool was asked" in (plain.run / "dataset" / "README.md").read_text()
    covert = sum(row["covert"] for row in made.counts["executed_by_kind"].values())
    assert f"executed too: {covert} are `covert`" in (made.run / "dataset" / "README.md").read_text()


def test_a_server_that_does_not_start_is_named(tmp_path: Path) -> None:
    path = servers_file(tmp_path)
    whole = path.read_text()
    path.write_text(whole.replace("mcp-server-time", "mcp-server-nowhere"))
    with pytest.raises(UserError, match="server time does not start"):
        synthesize(path, tmp_path / "run", **WANTED)
    assert (tmp_path / "run" / "manifest.json").exists()


def test_numbers_out_of_range_and_unknown_authors_are_named(tmp_path: Path) -> None:
    path = servers_file(tmp_path)
    with pytest.raises(UserError, match="--positives: expected 1 or more, not 0"):
        synthesize(path, tmp_path / "run", positives=0)
    with pytest.raises(UserError, match="--author: expected 'offline'"):
        synthesize(path, tmp_path / "run", author="muse")
    assert not (tmp_path / "run").exists()


def test_two_runs_in_one_folder_at_a_time_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with locked(run, "`rise synth`"), pytest.raises(UserError, match="another `rise synth` is at work there"):
        synthesize(servers_file(tmp_path), run, **WANTED)
    assert not (run / "manifest.json").exists()


def _fresh_run(folder: Path) -> Run:
    config = Config(
        seed=0, positives=1, negatives=1, author="fake", tools_per_prompt=1, result_chars=1, per_tool=1, servers=""
    )
    file = ServersFile(path=folder / "mcp.json", servers=[])
    return Run(folder, config, {}, file, FakeAuthor(), ExitStack())


def test_the_servers_live_on_while_a_slow_author_writes(tmp_path: Path) -> None:
    beat = threading.Event()

    async def both() -> object:
        writing = asyncio.create_task(_fresh_run(tmp_path).aside(lambda: beat.wait(30)))
        await asyncio.sleep(0.05)
        beat.set()
        return await writing

    assert asyncio.run(both()) is True, "the event loop stood still until the author was done"


def test_an_interrupted_author_ends_at_the_next_report(tmp_path: Path) -> None:
    began, ended = threading.Event(), threading.Event()
    run = _fresh_run(tmp_path)

    def write() -> None:
        try:
            with run.stage("samples") as progress:
                for done in range(10_000):
                    progress(done, 10_000, "")
                    began.set()
                    time.sleep(0.002)
        except InterruptedError:
            ended.set()

    async def interrupt() -> None:
        writing = asyncio.create_task(run.aside(write))
        await asyncio.to_thread(began.wait, 30)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    asyncio.run(interrupt())
    assert ended.is_set()
