"""How synthesis scales: seconds, processor seconds and samples a second for runs of several sizes; embeddings a second.

    python tests/bench/pipeline.py                       # 500 positives, and embeddings: about 4 minutes
    python tests/bench/pipeline.py 1000 3240 10000       # the table in docs/synthesis.md; over an hour on 2 cores
    make bench SIZES="1000 3240 10000"                   # the same, with all other benchmarks

Every run is `rise synth` on the shipped servers with the offline author, in a folder of its own, with its stages' times
from the manifest. Processor seconds include the servers. Embeddings are compared with those of `sentence-transformers`,
each in a process of its own: what it takes to the first text, and then for 2,000.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEGATIVES = 5
STAGES = ("servers", "primitives", "trajectories", "samples", "negatives", "executions", "dataset")
TEXTS = 2000


def synthesise(positives: int, folder: Path) -> str:
    """One run; returns a row of the table."""
    command = [sys.executable, "-m", "rise_train.cli", "synth", "recipes/tiny/mcp.json", "-o", str(folder)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [*command, "--positives", str(positives), "--negatives", str(NEGATIVES)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    manifest = json.loads((folder / "manifest.json").read_text())
    counts, seconds = manifest["counts"], manifest["seconds"]
    stages = " ".join(f"{seconds.get(stage, 0):10.0f}" for stage in STAGES)
    return (
        f"{counts['positives']:9} {counts['negatives']:9} {stages} {wall:8.0f} {busy:8.0f}"
        f" {counts['positives'] / wall:12.1f} {counts['negatives'] / wall:12.1f}"
    )


OURS = "from synthesis.text.embedding import encode"
THEIRS = """
from sentence_transformers import SentenceTransformer
from synthesis.text.embedding import _folder
encode = SentenceTransformer(str(_folder()), device="cpu", local_files_only=True).encode
"""
MEASURED = f"""
import random, resource
rng = random.Random(0)
words = ["invoice", "meeting", "order", "Oslo", "cell", "row", "blue", "report", "forward", "total", "open"]
texts = [" ".join(rng.choices(words, k=rng.randint(1, 12))) + f" {{i}}" for i in range({TEXTS})]
def taken():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
encode(["the first text"])
first, _ = taken()
encode(texts)
all_, memory = taken()
print(f"{{first:.1f}} CPU s to the first text, {{all_ - first:.1f}} for {TEXTS} more, {{memory:.0f}} MiB")
"""


def embeddings() -> str:
    """What our encoder takes, beside the library for the same weights."""
    from synthesis.text.embedding import available

    if not available():
        return "embeddings: not measured, the extra `embeddings` is not installed"

    def measured(ways: str) -> str:
        command = [sys.executable, "-c", ways + MEASURED]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return f"embeddings: {measured(OURS)}\nby sentence-transformers: {measured(THEIRS)}"


def main() -> None:
    """Print the table."""
    sizes = [int(size) for size in sys.argv[1:] or os.environ.get("SIZES", "500").split()]
    sys.path.insert(0, str(ROOT))
    print(embeddings(), flush=True)
    head = " ".join(f"{stage:>10}" for stage in STAGES)
    print(f"positives negatives {head} {'wall s':>8} {'CPU s':>8} {'positives/s':>12} {'negatives/s':>12}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            print(synthesise(size, Path(folder) / str(size)), flush=True)


if __name__ == "__main__":
    main()
