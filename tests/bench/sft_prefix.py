"""An SFT step on rows that begin alike: the shared beginning computed once against TRL's padded batch.

    python tests/bench/sft_prefix.py                     # random rows over a common beginning
    python tests/bench/sft_prefix.py --dataset RUN/dataset    # the batches of a real dataset, one epoch
    python tests/bench/sft_prefix.py --json OUT

S is the length of what all rows begin with, U of what a row adds before its target, C of its target, G the rows of a
batch; a row's U and C vary by up to a third. The model is the tiny one, all weights, float32; a step is forward and
backward. Time is CPU time in a process of its own, the best of the repeats. The losses have to agree.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
SIZES = [(100, 60, 80, 4), (400, 60, 80, 4), (400, 60, 80, 16), (900, 60, 80, 4), (900, 60, 80, 8), (2000, 60, 80, 8)]
VOCABULARY = 2048


def random_rows(common: int, own: int, target: int, count: int) -> list[dict[str, Any]]:
    """A batch of rows with a common beginning."""
    rng = random.Random(0)

    def tokens(most: int, least: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(least, most))]

    first, rows = tokens(common, common), []
    for _ in range(count):
        before, after = tokens(own, own * 2 // 3), tokens(target, target * 2 // 3)
        ids = [*first, *before, *after]
        rows.append({"input_ids": ids, "labels": [-100] * (len(ids) - len(after)) + after})
    return rows


def dataset_batches(dataset: str, size: int, way: str) -> list[list[dict[str, Any]]]:
    """Batches of a dataset's SFT rows: by like lengths as the recipes have it, or by what rows begin with."""
    from transformers import AutoTokenizer

    from rise_train.rows.batches import arrange
    from rise_train.rows.check import check_sft
    from rise_train.rows.masking import use_training_template
    from rise_train.rows.recipe_rows import read_split

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "recipes" / "tiny" / "base")
    use_training_template(tokenizer)
    found = check_sft(tokenizer, read_split(Path(dataset), "sft", "train")[:400], None, "error").encoded
    ids = [row.input_ids for row in found]
    arguments = SimpleNamespace(
        train_sampling_strategy="group_by_length",
        seed=0,
        data_seed=None,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=1,
        world_size=1,
    )  # the part of the training arguments that the order depends on
    order = arrange([len(row) for row in ids], arguments, ids if way == "shared" else None)
    rows = [{"input_ids": ids[i], "labels": found[i].labels} for i in order]
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def trainer_of(rows: list[dict[str, Any]]) -> Any:
    """A trainer of the tiny model that takes both kinds of batches."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    from rise_train.models.loading import score_only_targets

    score_only_targets()  # for both ways alike, as TRL does on a GPU
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6, vocab_size=VOCABULARY,
        max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}))
    return SFTTrainer(
        model=LlamaForCausalLM(config),
        args=SFTConfig(
            output_dir=tempfile.gettempdir(), report_to="none", bf16=False, gradient_checkpointing=False,
            max_length=None, save_strategy="no", use_cpu=True, dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"),
    )  # fmt: skip


def measure(way: str, source: Any, repeats: int) -> dict[str, Any]:
    """Run the batches in this process; returns CPU seconds, the mean loss and the tokens computed, padding included."""
    from eval.policies.allocator import keep_freed_memory
    from rise_train.packing.shared_prefix import SharedPrefixCollator, install

    keep_freed_memory()
    batches = dataset_batches(*source, way) if isinstance(source[0], str) else [random_rows(*source)]
    trainer = trainer_of([row for batch in batches for row in batch])
    if way == "shared":
        trainer.data_collator = SharedPrefixCollator(0, 192)
        install(trainer.model)
    collated = [trainer.data_collator(batch) for batch in batches]
    items = sum(int((batch["labels"] != -100).sum()) for batch in collated)
    seconds = []
    for _ in range(repeats):
        trainer.model.zero_grad()
        start, loss = time.process_time(), 0.0
        for batch in collated:
            part = trainer.compute_loss(trainer.model, batch, num_items_in_batch=items)
            part.backward()
            loss += part.item()
        seconds.append(time.process_time() - start)
    tokens = sum(batch["input_ids"].numel() for batch in collated)
    packed = sum("tree_end" in batch for batch in collated)
    return {"seconds": min(seconds), "loss": loss, "tokens": tokens, "packed": packed, "batches": len(collated)}


def compare(name: str, source: Any, repeats: int) -> dict[str, Any]:
    """Both ways, each in a fresh process; prints a row."""
    found = {}
    for way in ("padded", "shared"):
        command = [sys.executable, __file__, "--child", json.dumps([way, source, repeats])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(f"{way}, {name}: {done.stderr[-2000:]}")
        found[way] = json.loads(done.stdout.splitlines()[-1])
    padded, shared = found["padded"], found["shared"]
    if abs(padded["loss"] - shared["loss"]) > 1e-4:
        raise SystemExit(f"{name}: the loss is {padded['loss']} padded and {shared['loss']} shared")
    print(
        f"{name:<28} {padded['seconds']:7.2f} {shared['seconds']:7.2f}  {padded['seconds'] / shared['seconds']:5.2f}x"
        f"  {padded['tokens'] / shared['tokens']:5.2f}x  {shared['packed']}/{shared['batches']}",
        flush=True,
    )
    return {"name": name, **found}


def main() -> None:
    """Print a table of ratios; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="RUN/dataset: up to 400 of its rows, in batches of 4 and 8")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.child:
        print(json.dumps(measure(*json.loads(options.child))))
        return
    print("S, U, C, G                    padded  shared    time  tokens  packed batches")
    rows = [compare(", ".join(map(str, size)), size, 5) for size in SIZES]
    if options.dataset:
        rows += [compare(f"dataset, batches of {size}", [options.dataset, size], 1) for size in (4, 8)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
