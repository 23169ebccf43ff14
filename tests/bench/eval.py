"""Prompts a second that an evaluation answers: one `generate` a prompt, a padded batch, and ours; side by side.

    python tests/bench/eval.py [--model recipes/tiny/base] [--dataset runs/demo/dataset] [--tasks 40]

The prompts are those of a dataset's test tasks, every decision turn and the closing turn, as `rise eval` asks them. All
three ways answer greedily, with the same limit, in one process; what they say must be the same, token for token.
`make demo` makes the dataset.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

NEW_TOKENS, BATCH, REPEATS = 120, 64, 3
Replies = dict[int, list[int]]


def main() -> None:
    """Print a row for each way: prompts a second, times the loop, and how many replies are the loop's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "recipes/tiny/base"))
    parser.add_argument("--dataset", type=Path, default=ROOT / "runs/demo/dataset")
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    given = parser.parse_args()
    if not given.dataset.is_dir():
        print(f"{given.dataset}: no dataset there; `make demo` makes it")
        return

    import torch

    from eval.policies.decoding import decode
    from eval.policies.local import LocalPolicy
    from eval.rollouts.decisions import load_tasks

    policy = LocalPolicy(given.model)
    tasks = load_tasks(given.dataset, limit=given.tasks)
    asked = [decision.prompt for task in tasks for decision in task.decisions]
    asked += [task.closing for task in tasks if task.closing is not None]
    prompts = policy.tokenizer([policy.render(prompt) for prompt in asked], add_special_tokens=False)["input_ids"]
    model, stop, pad = policy.model, policy.stop, policy.tokenizer.pad_token_id

    def loop() -> Replies:
        return {i: new for i in range(len(prompts)) for new in generate(model, [prompts[i]], pad)}

    def batches() -> Replies:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found: Replies = {}
        for at in range(0, len(order), given.batch_size):
            some = order[at : at + given.batch_size]
            found |= dict(zip(some, generate(model, [prompts[i] for i in some], pad), strict=True))
        return found

    def ours() -> Replies:
        return dict(decode(model, prompts, stop, pad, NEW_TOKENS, given.batch_size))

    ways: dict[str, Callable[[], Replies]] = {"one `generate` a prompt": loop, "padded batches": batches, "ours": ours}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, list[list[int]]] = {}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.perf_counter()
            replies = way()
            seconds[name].append(time.perf_counter() - start)
            said[name] = [ended(replies[i], stop) for i in range(len(prompts))]
    lengths = [len(ids) for ids in prompts]
    print(
        f"{len(prompts)} prompts of {statistics.mean(lengths):.0f} tokens, {len(tasks)} tasks, "
        f"{torch.get_num_threads()} threads, medians of {REPEATS}\n| way | prompts/s | times the loop | same replies |"
    )
    print("|---|---:|---:|---:|")
    first = statistics.median(seconds["one `generate` a prompt"])
    for name, taken in seconds.items():
        same = sum(a == b for a, b in zip(said[name], said["one `generate` a prompt"], strict=True))
        took = statistics.median(taken)
        print(f"| {name} | {len(prompts) / took:.1f} | {first / took:.1f} | {same} of {len(prompts)} |", flush=True)


def generate(model: Any, prompts: list[list[int]], pad: int) -> list[list[int]]:
    """New tokens by `generate` and nothing else, padded on the left."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=seen, max_new_tokens=NEW_TOKENS)
    new: list[list[int]] = output[:, width:].tolist()
    return new


def ended(new: list[int], stop: set[int]) -> list[int]:
    """The reply up to and with the first token that ends it."""
    end = next((i for i, token in enumerate(new) if token in stop), len(new) - 1)
    return new[: end + 1]


if __name__ == "__main__":
    main()
