"""What a busy process costs a training and an evaluation: tokens a second, quiet and beside one, by number of threads.

    python tests/bench/busy.py                                                   # before, and ours
    python tests/bench/busy.py "one thread" passive "short spins" "long spins"   # OpenMP's own ways

The tiny base is trained for some steps, and answers some prompts, each in a process of its own with all the cores that
this one has. The busy process only counts. Every figure is the median of three, taken in turn. `default` is what OpenMP
does where nobody says anything, `ours` is what `eval.policies.threads` does then.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

CORES = str(len(os.sched_getaffinity(0)))
WAYS = {
    "default": {"OMP_NUM_THREADS": CORES},
    "ours": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "passive": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "PASSIVE"},
    "short spins": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "10000"},
    "long spins": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "300000"},
}
BASE, RECIPE = ROOT / "recipes/tiny/base", ROOT / "recipes/tiny/sft/config_full.yaml"
STEPS, PROMPTS, NEW_TOKENS, REPEATS = 60, 48, 64, 3


def main(ways: list[str]) -> None:
    """Print a row for each way: tokens a second, and what the busy process leaves of them."""
    from handmade import sft_row, write_dataset

    with tempfile.TemporaryDirectory() as place:
        rows = [sft_row(i) for i in range(4 * STEPS)]
        dataset = write_dataset(Path(place) / "dataset", rows, rows[:PROMPTS])
        print(f"{CORES} cores\n| threads | work | quiet | busy | busy/quiet |\n|---|---|---:|---:|---:|")
        for way in ways or ("default", "ours"):
            for work, measure in {"sft": train, "eval": answer}.items():
                found: dict[bool, list[float]] = {False: [], True: []}
                for busy in [False, True] * REPEATS:
                    found[busy].append(beside(busy, lambda: measure(Path(place), dataset, WAYS[way])))  # noqa: B023
                quiet, loaded = (statistics.median(found[busy]) for busy in (False, True))
                print(f"| {way} | {work} | {quiet:,.0f} | {loaded:,.0f} | {loaded / quiet:.2f} |", flush=True)


def beside(busy: bool, measure):  # type: ignore[no-untyped-def]
    """Measure, beside a busy process or alone."""
    if not busy:
        return measure()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            return measure()
        finally:
            other.kill()


def run(command: list[str], way: dict[str, str]) -> str:
    """What the command prints, under one way's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    env = kept | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | way
    return subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, env=env).stdout


def train(place: Path, dataset: Path, way: dict[str, str]) -> float:
    """Tokens a second of a training, as it says itself at its last step."""
    output = ["--output_dir", tempfile.mkdtemp(dir=place), "--dataset_name", str(dataset)]
    options = ["--config", str(RECIPE), "--model_name_or_path", str(BASE), "--max_steps", str(STEPS)]
    printed = run(["-m", "rise_train.sft", *options, *output], way)
    return float(re.findall(r"([\d,]+) tokens/s", printed)[-1].replace(",", ""))


def answer(_place: Path, dataset: Path, way: dict[str, str]) -> float:
    """New tokens a second of an evaluation."""
    return float(run([__file__, "--answer", str(dataset)], way))


def answer_here(dataset: Path) -> None:
    """Answer the prompts of the test split twice, the first time to warm up, and print new tokens a second."""
    from eval.policies.local import LocalPolicy
    from eval.rollouts.decisions import load_tasks

    policy = LocalPolicy(BASE, 16, NEW_TOKENS)
    prompts = [decision.prompt for task in load_tasks(dataset) for decision in task.decisions]
    policy.reply(prompts)
    start = time.monotonic()
    replies = policy.reply(prompts)
    spent = time.monotonic() - start
    print(sum(len(policy.tokenizer(reply.text)["input_ids"]) for reply in replies) / spent)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--answer"]:
        answer_here(Path(sys.argv[2]))
    else:
        main(sys.argv[1:])
