"""A DPO step on one group: grouped against stock TRL, pair by pair and with all pairs in one batch.

    python tests/bench/grouped_dpo.py               # the tiny model, and a 100M one at the shortest prompt
    python tests/bench/grouped_dpo.py --all         # the 100M model at the three longest: about 20 minutes
    python tests/bench/grouped_dpo.py --only 2000,100,8
    python tests/bench/grouped_dpo.py --json OUT

A step is forward, backward and reference pass with a LoRA adapter (rank 16 on all linear layers), float32, without an
optimiser. P is the prompt's length, C an answer's, K the number of wrong answers, each of them the right one with one
token changed at a random place. Every way runs in a process of its own. Time is CPU time, the best of the repeats
(three of the tiny model, one of the other) after one batch to warm up; memory is the peak of the resident set above
that before the step. The losses have to agree. All ways score only the targets, as TRL does on a GPU, and keep freed
memory, as `rise_train` does.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGETS = [(512, 64, 8), (1024, 96, 8), (2000, 100, 8)]
SIZES = [(256, 64, 4), (512, 64, 2), (512, 64, 16), (512, 256, 8), *TARGETS]
WAYS = ("grouped", "one pair", "all pairs")
MODELS = {
    "tiny": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6},
    "100M": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "num_attention_heads": 12},
}
VOCABULARY = {"tiny": 2048, "100M": 8192}
TOO_LARGE = 10_000
"""Tokens above which the 100M model does not try all pairs in one batch: activations would need over 10 GB."""


def group_of(prompt: int, answer: int, wrong: int, vocabulary: int) -> dict[str, Any]:
    """One group of random tokens; every wrong answer differs from the right one in one token."""
    rng = random.Random(0)
    chosen = [rng.randrange(3, vocabulary) for _ in range(answer)]
    rejected = []
    for _ in range(wrong):
        changed = chosen[:]
        changed[rng.randrange(answer)] = rng.randrange(3, vocabulary)
        rejected.append(changed)
    ids = [rng.randrange(3, vocabulary) for _ in range(prompt)]
    return {"prompt_ids": ids, "chosen_ids": chosen, "rejected_ids": rejected}


def trainer_of(way: str, model_name: str, rows: list[dict[str, Any]]) -> Any:
    """A trainer over `rows` with a fresh adapter."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    from rise_train.models.loading import score_only_targets
    from rise_train.packing.grouped_dpo import GroupCollator, GroupedDPOTrainer

    class Stock(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    score_only_targets()  # for all ways alike, as TRL does on a GPU
    torch.manual_seed(0)
    config = LlamaConfig(
        **MODELS[model_name], vocab_size=VOCABULARY[model_name], max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    arguments = DPOConfig(
        output_dir=tempfile.gettempdir(), report_to="none", bf16=False, gradient_checkpointing=False, max_length=None,
        save_strategy="no", use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    kind, collator = (GroupedDPOTrainer, GroupCollator(0)) if way == "grouped" else (Stock, None)
    return kind(
        model=LlamaForCausalLM(config), args=arguments, train_dataset=Dataset.from_list(rows), data_collator=collator,
        processing_class=tokenizer, peft_config=adapter,
    )  # fmt: skip


def measure(way: str, model_name: str, size: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Run the step in this process; returns seconds, megabytes, the loss and the tokens that it computed."""
    from eval.policies.allocator import keep_freed_memory

    keep_freed_memory()
    group = group_of(*size, VOCABULARY[model_name])
    pairs = [{**group, "rejected_ids": rejected} for rejected in group["rejected_ids"]]
    trainer = trainer_of(way, model_name, [group] if way == "grouped" else pairs)
    batches = {"grouped": [[group]], "all pairs": [pairs], "one pair": [[pair] for pair in pairs]}[way]
    batches = [trainer.data_collator(batch) for batch in batches]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for repeat in range(repeats + 1):
        trainer.model.zero_grad()
        start, loss = time.process_time(), 0.0
        for batch in batches if repeat else batches[:1]:  # one to warm up: memory that the process never had costs time
            if way == "grouped":
                trainer.mean_pairs = len(batch["input_ids"]) / 2
            part = trainer.compute_loss(trainer.model, batch) / len(batches)
            part.backward()
            loss += part.item()
        seconds += [time.process_time() - start] * bool(repeat)
    tokens = sum(b.get("packed_input_ids", b["input_ids"]).numel() for b in batches)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    parameters = sum(weight.numel() for weight in trainer.model.parameters())
    return {
        "seconds": min(seconds), "megabytes": megabytes, "loss": loss, "tokens": tokens, "parameters": parameters
    }  # fmt: skip


def run_child(way: str, model_name: str, size: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--child", json.dumps([way, model_name, size, repeats])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=None, check=False)
    if done.returncode:
        raise SystemExit(f"{way}, {model_name}, {size}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(model_name: str, size: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """All ways at one size; prints a row."""
    prompt, answer, wrong = size
    skip = model_name == "100M" and 2 * wrong * (prompt + answer) > TOO_LARGE
    ways = [way for way in WAYS if not (skip and way == "all pairs")]
    found = {way: run_child(way, model_name, size, repeats) for way in ways}
    ours, stock = found["grouped"], {way: found[way] for way in ways[1:]}
    fastest = min(stock, key=lambda way: stock[way]["seconds"])
    least = min(s["megabytes"] for s in stock.values())
    for way, result in stock.items():
        if abs(result["loss"] - ours["loss"]) > 1e-4:
            raise SystemExit(f"{model_name} {size}: the loss of {way} is {result['loss']}, grouped {ours['loss']}")
    times = stock[fastest]["seconds"] / ours["seconds"]
    tokens = found["one pair"]["tokens"] / ours["tokens"]
    cells = [found[way]["seconds"] if way in found else float("nan") for way in WAYS]
    print(
        f"{model_name:>5} {prompt:5} {answer:4} {wrong:2}  {cells[0]:8.2f} {cells[1]:9.2f} {cells[2]:10.2f}"
        f"  {times:6.1f}x ({fastest})  {tokens:5.1f}x  {ours['megabytes']:7.0f} / {least:.0f}",
        flush=True,
    )
    return {"model": model_name, "size": size, "ways": found, "ratio": times, "token_ratio": tokens}


def main() -> None:
    """Print a table of ratios; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the 100M model at all three TARGETS")
    parser.add_argument("--only", help="one size, e.g. 2000,100,8, of both models")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.child:
        way, model_name, size, repeats = json.loads(options.child)
        print(json.dumps(measure(way, model_name, tuple(size), repeats)))
        return
    print("        P    C  K   grouped  one pair  all pairs   faster than    tokens  MB grouped / least of stock")
    small, large = SIZES, TARGETS if options.all else TARGETS[:1]
    if options.only:
        prompt, answer, wrong = map(int, options.only.split(","))
        small = large = [(prompt, answer, wrong)]
    rows = [compare("tiny", size, 3) for size in small] + [compare("100M", size, 1) for size in large]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
