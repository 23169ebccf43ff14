"""An 8B-shaped model on one GPU: DPO by stock TRL and in groups, SFT padded and packed, each in a process of its own.

    python tests/bench/gpu.py --json OUT               # on a GPU: Qwen3-8B's shape, bfloat16, LoRA of rank 16
    python tests/bench/gpu.py --prompt 4000 --wrong 16 --seconds 900
    python tests/bench/gpu.py                          # without a GPU: tiny shapes, to see that the script runs

The weights are random, so nothing is downloaded. A step is forward, backward and, in DPO, the reference pass, without
an optimiser step. Pairs and tokens a second are wall-clock, the best of the repeats after one step to warm up. A way
that runs out of memory, or finds no time left of --seconds, is a row that says so; the first ways matter most.

Model FLOP utilisation is the FLOPs that the way's own tokens need, over time and the GPU's dense bf16 peak:

    forward  = 2 W n + 4 L A c + 2 H V s
    backward = 2 W n + 8 L A c + 2 H V s      # frozen weights need no gradient of their own: LoRA's share is left out
    step     = forward + backward, and one more forward for the reference of DPO

with W the weights of the linear layers without the head, n the tokens that go through them, L layers, A the width of
all query heads, c the (query, key) pairs that see each other, H V the size of the head and s the tokens scored. What is
computed again under gradient checkpointing, and masked cells, do not count.
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
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
WAYS = {
    # trainer, attention, pairs or rows a micro-batch (0: all), gradient checkpointing
    "DPO stock, one pair": ("stock", "sdpa", 1, False),
    "DPO grouped, sdpa": ("grouped", "sdpa", 0, False),
    "SFT padded": ("padded", "sdpa", 0, False),
    "SFT shared prefix, sdpa": ("shared", "sdpa", 0, False),
    "DPO stock, all pairs": ("stock", "sdpa", 0, True),
    "DPO grouped, flex": ("grouped", "flex_attention", 0, False),
    "SFT packed, flex": ("packed", "flex_attention", 0, False),
}
QWEN3_8B = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip
SMALL = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "tie_word_embeddings": False,
}  # fmt: skip
PEAK = {"H200": 989.0, "H100 80GB HBM3": 989.0, "A100": 312.0}
"""Dense bf16 TFLOP/s by the vendor's data sheets, by a part of the device's name."""


def group_of(prompt: int, answer: int, wrong: int, vocabulary: int) -> dict[str, Any]:
    """One group of random tokens; every wrong answer differs from the right one in one token."""
    rng = random.Random(0)
    chosen = [rng.randrange(3, vocabulary) for _ in range(answer)]
    rejected = []
    for _ in range(wrong):
        changed = chosen[:]
        changed[rng.randrange(answer)] = rng.randrange(3, vocabulary)
        rejected.append(changed)
    return {
        "prompt_ids": [rng.randrange(3, vocabulary) for _ in range(prompt)],
        "chosen_ids": chosen, "rejected_ids": rejected,
    }  # fmt: skip


def sft_rows(prompt: int, answer: int, count: int, vocabulary: int) -> list[dict[str, Any]]:
    """Rows with three quarters of the prompt in common; each has at most the last quarter for itself."""
    rng = random.Random(0)
    common = [rng.randrange(3, vocabulary) for _ in range(prompt * 3 // 4)]
    rows = []
    for _ in range(count):
        own = [rng.randrange(3, vocabulary) for _ in range(rng.randint(prompt // 16, prompt // 4))]
        target = [rng.randrange(3, vocabulary) for _ in range(rng.randint(answer // 2, answer))]
        ids = [*common, *own, *target]
        rows.append({"input_ids": ids, "labels": [-100] * (len(ids) - len(target)) + target})
    return rows


class Form(NamedTuple):
    """What is measured: `small` shapes on the CPU or the 8B model on a GPU, and in which type its weights are."""

    small: bool
    dtype: str
    size: tuple[int, int, int]
    """Tokens of the prompt and of an answer, and K."""
    repeats: int

    @property
    def shape(self) -> dict[str, Any]:
        """Fields of the model's configuration."""
        return SMALL if self.small else QWEN3_8B


def trainer_of(kind: str, attention: str, checkpointing: bool, form: Form, rows: list[dict[str, Any]]) -> Any:
    """A trainer of either stage over `rows`, with a fresh adapter on every linear layer but the head."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from rise_train.models.loading import score_only_targets
    from rise_train.packing.grouped_dpo import GroupCollator, GroupedDPOTrainer
    from rise_train.packing.shared_prefix import SharedPrefixCollator, install

    class Stock(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    score_only_targets()  # for all ways alike, as TRL does on a GPU
    torch.manual_seed(0)
    config = Qwen3Config(**form.shape, max_position_embeddings=40960, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with torch.device("cpu" if form.small else "cuda"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, form.dtype), attn_implementation=attention
        )
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}))
    common: dict[str, Any] = {
        "output_dir": tempfile.gettempdir(), "report_to": "none", "bf16": form.dtype == "bfloat16", "max_length": None,
        "gradient_checkpointing": checkpointing, "save_strategy": "no", "use_cpu": form.small,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    collator = {
        "grouped": lambda: GroupCollator(0, one_row=attention == "flex_attention"),
        "packed": lambda: DataCollatorForLanguageModeling(0, padding_free=True),
        "shared": lambda: SharedPrefixCollator(0, config.hidden_size),
        "padded": lambda: DataCollatorForLanguageModeling(0),
        "stock": lambda: None,
    }[kind]()
    dpo = kind in ("stock", "grouped")
    trainer_kind = {"stock": Stock, "grouped": GroupedDPOTrainer}.get(kind, SFTTrainer)
    trainer = trainer_kind(
        model=model, args=(DPOConfig if dpo else SFTConfig)(**common), train_dataset=Dataset.from_list(rows),
        data_collator=collator, peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"),
    )  # fmt: skip
    if kind == "shared":
        install(trainer.accelerator.unwrap_model(trainer.model).get_base_model())
    return trainer


def flops(config: Any, batches: list[dict[str, Any]], dpo: bool) -> float:
    """FLOPs that a step over `batches` needs, by the formula at the top."""
    heads, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = config.hidden_size * (2 * heads + 2 * kv + 3 * config.intermediate_size)
    tokens = cells = scored = 0
    for batch in batches:
        depth = batch.get("packed_positions", batch.get("position_ids"))
        if depth is None:
            lengths = batch["attention_mask"].sum(dim=1)
            tokens, cells = tokens + int(lengths.sum()), cells + int((lengths * (lengths + 1) // 2).sum())
        else:
            tokens, cells = tokens + depth.numel(), cells + int((depth + 1).sum())
        targets = batch.get("packed_labels", batch.get("labels"))
        scored += int(batch["completion_mask"].sum() if targets is None else (targets != -100).sum())
    linear = 2 * (layer * config.num_hidden_layers * tokens + config.hidden_size * config.vocab_size * scored)
    attention = 4 * config.num_hidden_layers * heads * cells
    return float((3 if dpo else 2) * linear + (4 if dpo else 3) * attention)


def measure(way: str, form: Form) -> dict[str, Any]:
    """Run the step in this process; returns seconds, pairs or rows, tokens, gigabytes and FLOPs."""
    import torch

    kind, attention, at_once, checkpointing = WAYS[way]
    if form.small and attention == "flex_attention":  # its backward does not run on a CPU
        attention = "sdpa"
    prompt, answer, wrong = form.size
    dpo = kind in ("stock", "grouped")
    vocabulary = form.shape["vocab_size"]
    group = group_of(prompt, answer, wrong, vocabulary)
    rows = [{**group, "rejected_ids": rejected} for rejected in group["rejected_ids"]]
    if kind == "grouped":
        rows = [group]
    elif not dpo:
        rows = sft_rows(prompt, answer, wrong, vocabulary)
    trainer = trainer_of(kind, attention, checkpointing, form, rows)
    step = at_once or len(rows)
    batches = [trainer.data_collator(rows[at : at + step]) for at in range(0, len(rows), step)]
    trainer.model.train()
    seconds = []
    for _ in range(form.repeats + 1):
        trainer.model.zero_grad()
        start = time.perf_counter()
        loss = sum(_step(trainer, batch) for batch in batches) / len(batches)
        if not form.small:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if not form.small:
        peak = torch.cuda.max_memory_allocated() / 2**30
    config = trainer.accelerator.unwrap_model(trainer.model).config
    return {
        "seconds": min(seconds[1:]),
        "gigabytes": peak,
        "loss": loss,
        "items": wrong,
        "tokens": sum(b.get("packed_input_ids", b["input_ids"]).numel() for b in batches),
        "flops": flops(config, batches, dpo),
        "attention": attention,
        "device": "CPU" if form.small else torch.cuda.get_device_name(),
    }


def _step(trainer: Any, batch: dict[str, Any]) -> float:
    batch = trainer._prepare_inputs(dict(batch))
    if "packed_input_ids" in batch:
        trainer.mean_pairs = len(batch["input_ids"]) / 2
    with trainer.accelerator.autocast():
        loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss)


def run_child(way: str, form: Form, seconds: float) -> dict[str, Any]:
    """`measure` in a fresh process; a way that does not fit into memory or time gives `{"failed": ...}`."""
    command = [sys.executable, __file__, "--child", json.dumps([way, form])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
        return {"failed": "no time left"}
    if done.returncode and "OutOfMemoryError" in done.stderr:
        return {"failed": "out of memory"}
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(way: str, result: dict[str, Any], peak_tflops: float | None) -> None:
    """Print a row of the table, and put the utilisation into `result`."""
    if "failed" in result:
        print(f"{way:<24} {result['failed']}", flush=True)
        return
    known = next((value for name, value in PEAK.items() if name in result["device"]), None)
    peak = peak_tflops or known
    result["mfu"] = result["flops"] / result["seconds"] / (peak * 1e12) if peak else None
    share = f"{result['mfu']:6.2f}" if peak else "     -"
    print(
        f"{way:<24} {result['seconds']:8.3f} {result['items'] / result['seconds']:9.2f} "
        f"{result['tokens'] / result['seconds']:10.0f} {share} {result['gigabytes']:8.1f}",
        flush=True,
    )


def main() -> None:
    """Print the table; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", type=int)
    parser.add_argument("--answer", type=int)
    parser.add_argument("--wrong", type=int, default=8, help="K, wrong answers a group; rows of an SFT batch")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of the weights")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=225, help="for all ways together")
    parser.add_argument("--peak-tflops", type=float, help="the device's dense bf16 peak, where the table lacks it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.child:
        way, form = json.loads(options.child)
        print(json.dumps(measure(way, Form(*form))))
        return
    import torch

    started = time.monotonic()
    small = not torch.cuda.is_available()
    size = (options.prompt or (96 if small else 2048), options.answer or (16 if small else 128), options.wrong)
    form = Form(small, options.dtype, size, options.repeats)
    if small:
        print("CPU form: not the GPU row. Tiny shapes, SDPA in place of FlexAttention")
    print(f"{form.dtype}, prompt {size[0]}, answer {size[1]}, K {size[2]}")
    print("                          seconds pairs,rows/s  tokens/s    MFU   GB peak")
    found = {}
    for way in WAYS:
        found[way] = run_child(way, form, started + options.seconds - time.monotonic())
        show(way, found[way], options.peak_tflops)
    if options.json:
        options.json.write_text(json.dumps({"size": size, "dtype": form.dtype, "ways": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
