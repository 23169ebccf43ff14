"""Pretrain the tiny base on procedural tools:

    python -m rise_train.tiny.pretrain recipes/tiny/pretrain.yaml
    python -m rise_train.tiny.pretrain recipes/tiny/pretrain.yaml --steps 8000    # longer; goes on where it was

The learning rate is held, then annealed linearly over the last `decay` of `steps`; a run that was stopped before the
annealing began can be given another number of steps. Batch i depends on the seed and i alone, so a killed run goes on
with the batches it would have seen.
"""

import argparse
import functools
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rise_train.tiny.optimizer import Muon
from rise_train.tiny.procedural import LISTS, Conversation, conversation
from rise_train.tiny.structured_init import TinyShape, build_model
from rise_train.tiny.tokenizer import build_tokenizer
from synthesis.errors import UserError
from synthesis.seeds import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNKS = 3  # batches per pool of conversations that is sorted by length
PROMPT_SHARE = 0.2  # of the prompt tokens enter the loss, drawn at random: the output layer is a quarter of the cost


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe's fields. `batch_size` counts conversations (about 260 tokens each)."""

    output_dir: str
    steps: int = 5000
    batch_size: int = 16
    seed: int = 0
    vocab_size: int = 2048
    matrix_lr: float = 0.02
    other_lr: float = 0.003
    warmup: float = 0.01
    decay: float = 0.4
    prompt_weight: float = 0.1
    ease: float = 0.35
    easy_start: float = 0.03
    threads: int = 1
    save_every: int = 100
    eval_every: int = 500

    @classmethod
    def load(cls, path: Path) -> "PretrainConfig":
        """Read a recipe; an unknown field is a `UserError`."""
        values = yaml.safe_load(path.read_text())
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(
                f"{path}: unknown field {sorted(unknown)[0]!r}, expected one of {[f.name for f in fields(cls)]}."
            )
        return cls(**values)


def as_text(c: Conversation) -> str:
    """The words of a conversation, for training the tokenizer before there is a template."""
    functions = [t["function"] for t in c.tools]
    lines = [f"{f['name']} {f['description']} {json.dumps(f['parameters'])}" for f in functions]
    for m in c.messages:
        calls = [k["function"] for k in m.get("tool_calls", [])]
        lines.append(m["content"] + " ".join(f"{k['name']}{json.dumps(k['arguments'])}" for k in calls))
    return "\n".join(lines)


def make_tokenizer(config: PretrainConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer, trained on procedural text and a list of ordinary words."""
    conversations = (as_text(conversation(seeded(config.seed, "tokenizer", i))) for i in range(6000))
    known = " ".join(word for name in ("nouns", "words", "filler", "verbs") for word in LISTS[name])
    known += " " + " ".join(option for options in LISTS["choices"] for option in options)
    return build_tokenizer([*conversations, *[known] * 60], config.vocab_size)


class Batches(Dataset[dict[str, Tensor]]):
    """Batch i as `input_ids`, `attention_mask` and loss `weights`, each (batch, length), padded on the right."""

    def __init__(self, config: PretrainConfig, tokenizer: "PreTrainedTokenizerBase", start: int) -> None:
        self.config, self.tokenizer, self.start = config, tokenizer, start
        self.pool = functools.lru_cache(2)(self._pool)

    def __len__(self) -> int:
        return self.config.steps - self.start

    def _pool(self, number: int) -> list[dict[str, list[int]]]:
        c = self.config
        easy = number * CHUNKS < c.easy_start * c.steps
        rows = []
        for i in range(c.batch_size * CHUNKS):
            talk = conversation(seeded(c.seed, "pretrain", number, i), 1.0 if easy else c.ease)
            rows.append(
                self.tokenizer.apply_chat_template(
                    talk.messages, tools=talk.tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
                )
            )
        return sorted(rows, key=lambda row: len(row["input_ids"]))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        step = self.start + index
        size = self.config.batch_size
        rows = self.pool(step // CHUNKS)[step % CHUNKS * size : (step % CHUNKS + 1) * size]
        length = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((size, length), self.tokenizer.pad_token_id)
        mask, weights = torch.zeros_like(ids), torch.zeros(size, length)
        lot = torch.Generator().manual_seed(step)
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            ids[i, :n] = torch.tensor(row["input_ids"])
            mask[i, :n] = 1
            drawn = (torch.rand(n, generator=lot) < PROMPT_SHARE) * self.config.prompt_weight / PROMPT_SHARE
            weights[i, :n] = torch.where(torch.tensor(row["assistant_masks"]) == 1, 1.0, drawn)
        return {"input_ids": ids, "attention_mask": mask, "weights": weights}


def loss_of(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, float]:
    """Weighted next-token cross-entropy, and its mean over assistant tokens alone (nats)."""
    hidden = model.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    kept = batch["weights"][:, 1:] > 0
    weights = batch["weights"][:, 1:][kept]
    nll = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[:, :-1][kept]), batch["input_ids"][:, 1:][kept], reduction="none"
    )
    return (nll * weights).sum() / weights.sum(), nll.detach()[weights == 1].mean().item()


def rate(config: PretrainConfig, step: int) -> float:
    """Factor on the learning rates: linear warm-up, constant, linear to zero."""
    up = (step + 1) / max(1.0, config.warmup * config.steps)
    down = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min(1.0, up, down)


def save_state(folder: Path, model: Any, tokenizer: Any, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    """Model, tokenizer and optimizer state as safetensors, replaced in one rename."""
    from safetensors.torch import save_file

    fresh = folder.with_name(folder.name + ".new")
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    state = {"step": torch.tensor(step)}
    for i, optimizer in enumerate(optimizers):
        for j, p in enumerate(optimizer.param_groups[0]["params"]):
            state |= {f"{i}.{j}.{key}": value.clone() for key, value in optimizer.state[p].items()}
    save_file(state, fresh / "optimizer.safetensors")
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    for file in sorted(old.glob("*")):
        file.unlink()
    if old.exists():
        old.rmdir()


def load_state(folder: Path, optimizers: list[torch.optim.Optimizer]) -> int:
    """Put the optimizer state of `folder` back; the number of steps done."""
    from safetensors.torch import load_file

    state = load_file(folder / "optimizer.safetensors")
    for name, value in state.items():
        if name != "step":
            i, j, key = name.split(".")
            optimizer = optimizers[int(i)]
            optimizer.state[optimizer.param_groups[0]["params"][int(j)]][key] = value
    return int(state["step"])


def probe(model: Any, tokenizer: Any, seed: int, count: int = 96) -> dict[str, float]:
    """Greedy first turns on `count` unseen conversations: shares with the right tools and with the exact calls."""
    model.eval()
    right_tools = exact = 0
    talks = [conversation(seeded(seed, "held out", i)) for i in range(count)]
    tokenizer.padding_side = "left"
    for start in range(0, count, 32):
        part = talks[start : start + 32]
        prompts = [
            tokenizer.apply_chat_template(t.messages[:1], tools=t.tools, tokenize=False, add_generation_prompt=True)
            for t in part
        ]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=110, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        for talk, row in zip(part, out[:, inputs["input_ids"].shape[1] :], strict=True):
            text = tokenizer.decode(row).replace(tokenizer.pad_token, "")
            gold = tokenizer.apply_chat_template([talk.messages[1]], tokenize=False).removeprefix("<|assistant|>")
            names = [k["function"]["name"] for k in talk.messages[1]["tool_calls"]]
            right_tools += [part.split("{")[0] for part in text.split("<|call|>")[1:]] == names
            exact += text == gold
    model.train()
    return {"tools": right_tools / count, "exact": exact / count}


def main() -> None:
    """Entry point: pretrain by the recipe, from the last checkpoint if there is one."""
    parser = argparse.ArgumentParser(description="Pretrain the tiny base model on procedural tools.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, help="overrides the recipe's number of steps")
    args = parser.parse_args()
    config = PretrainConfig.load(args.recipe)
    if args.steps:
        config = PretrainConfig(**{**config.__dict__, "steps": args.steps})
    pretrain(config)


def pretrain(config: PretrainConfig) -> None:
    """Train; leaves the checkpoint and `log.jsonl` (a line every 20 steps) in `output_dir`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(config.threads)
    folder, log = Path(config.output_dir, "checkpoint"), Path(config.output_dir, "log.jsonl")
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    done = folder.exists()
    tokenizer = AutoTokenizer.from_pretrained(folder) if done else make_tokenizer(config)
    shape = TinyShape(vocab_size=config.vocab_size)
    model = AutoModelForCausalLM.from_pretrained(folder) if done else build_model(shape, config.seed)
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for p in model.parameters() if all(p is not q for q in inner)]
    optimizers = [Muon(inner, config.matrix_lr), torch.optim.Adam(outer, config.other_lr, betas=(0.9, 0.95))]
    base_rates = [config.matrix_lr, config.other_lr]
    start = load_state(folder, optimizers) if done else 0
    batches = Batches(config, tokenizer, start)
    began, seen = time.time(), 0
    for step, batch in enumerate(DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4), start):
        for optimizer, lr in zip(optimizers, base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = lr * rate(config, step)
            optimizer.zero_grad()
        loss, answer = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(outer, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        seen += int(batch["attention_mask"].sum())
        last = step + 1 == config.steps
        line: dict[str, float] = {
            "step": step + 1,
            "loss": loss.item(),
            "answer_nll": answer,
            "tokens": seen,
            "seconds": time.time() - began,
        }
        if (step + 1) % config.eval_every == 0 or last:
            line |= probe(model, tokenizer, config.seed)
        if (step + 1) % 20 == 0 or last:
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(" ".join(f"{k} {v:.4g}" for k, v in line.items()), flush=True)
        if (step + 1) % config.save_every == 0 or last:
            save_state(folder, model, tokenizer, optimizers, step + 1)


if __name__ == "__main__":
    main()
