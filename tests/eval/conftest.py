"""A small random Llama, the same model taught a handful of rows by heart, and hand-made rows to evaluate on."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Row = dict[str, Any]

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def spec(name: str, properties: Row, required: list[str]) -> Row:
    """A tool in the OpenAI format."""
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = [
    spec("time__convert", {"time": TEXT, "zone": TEXT}, ["time", "zone"]),
    spec("excel__read", {"sheet": TEXT, "rows": {**WHOLE, "default": 10}}, ["sheet"]),
]


def call(name: str, **arguments: Any) -> Row:
    """One entry of `tool_calls`."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def row(index: int, request: str, turns: list[list[Row]], critical: list[tuple[int, int, str]], pattern: str) -> Row:
    """A row of the SFT dataset; the critical values are those of the calls."""
    messages: list[Row] = [{"role": "user", "content": request}]
    for turn in turns:
        messages.append({"role": "assistant", "content": "", "tool_calls": turn})
        messages += [{"role": "tool", "name": c["function"]["name"], "content": "north 12"} for c in turn]
    messages.append({"role": "assistant", "content": "Here it is."})
    marked = [
        {"turn": t, "call": c, "parameter": p, "value": turns[t][c]["function"]["arguments"][p]} for t, c, p in critical
    ]
    meta = {"id": f"row{index}", "pattern": pattern, "servers": ["excel", "time"], "critical": marked}
    return {"messages": messages, "tools": TOOLS, "meta": meta}


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The makers of this file: `tools`, `call`, `make_model`, `make_tokenizer`, `template`."""
    return SimpleNamespace(
        tools=TOOLS, call=call, make_model=make_model, make_tokenizer=make_tokenizer, template=template
    )


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Three rows: a single call, two parallel ones, and a sequence of two turns."""
    read, convert = call("excel__read", sheet="Orders", rows=3), call("time__convert", time="09:30", zone="Asia/Tokyo")
    summary = call("excel__read", sheet="Summary")
    zones = [(0, 0, "time"), (0, 0, "zone")]
    return [
        row(0, "What is 09:30 in Tokyo?", [[convert]], zones, "single"),
        row(
            1,
            "Read 3 rows of Orders, and 09:30 in Tokyo?",
            [[read, convert]],
            [(0, 0, "sheet"), (0, 0, "rows")],
            "parallel",
        ),
        row(
            2,
            "Read Summary, then 3 rows of Orders.",
            [[summary], [read]],
            [(0, 0, "sheet"), (1, 0, "rows")],
            "sequential",
        ),
    ]


@pytest.fixture(scope="session")
def dataset(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows as the `test` split of a dataset folder."""
    from datasets import Dataset, DatasetDict, Features, Json, List

    folder = tmp_path_factory.mktemp("eval_dataset")
    features = Features({"messages": List(Json()), "tools": List(Json()), "meta": Json()})
    DatasetDict({"test": Dataset.from_list(rows, features=features)}).save_to_disk(folder / "sft")
    return folder


def template(name: str) -> str:
    """One of TRL's chat templates."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def make_tokenizer(texts: list[str]) -> Any:
    """Byte-level BPE with Qwen's special tokens and TRL's qwen3 template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special[:3], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(special[3:])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = template("qwen3")
    return fast


def make_model(vocabulary: int, context: int = 2048) -> Any:
    """A random Llama of about 0.2 million parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def _save(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(rows: list[Row]) -> Any:
    """The tokenizer of both models, with the template that training would give it."""
    from eval.replies.templates import fit

    fitted = make_tokenizer([str(r) for r in rows] + [template("qwen3")])
    assert fit(fitted)
    return fitted


@pytest.fixture(scope="session")
def raw_model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that was never trained."""
    return _save(tmp_path_factory.mktemp("raw"), make_model(len(tokenizer)), tokenizer)


@pytest.fixture(scope="session")
def drilled_model(tokenizer: Any, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model after learning the rows' turns by heart."""
    import torch

    examples = []
    for r in rows:
        for i, message in enumerate(r["messages"]):
            if message.get("tool_calls"):
                prompt = tokenizer.apply_chat_template(
                    r["messages"][:i], tools=TOOLS, add_generation_prompt=True, tokenize=False
                )
                calls = "\n".join(f"<tool_call>\n{_json(c)}\n</tool_call>" for c in message["tool_calls"])
                examples.append((prompt, calls + "<|im_end|>"))
        prompt = tokenizer.apply_chat_template(
            r["messages"][:-1], tools=TOOLS, add_generation_prompt=True, tokenize=False
        )
        examples.append((prompt, r["messages"][-1]["content"] + "<|im_end|>"))
    torch.manual_seed(0)
    model = make_model(len(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    encoded = [(tokenizer(p)["input_ids"], tokenizer(c)["input_ids"]) for p, c in examples]
    for _ in range(100):
        worst = 0.0
        for prompt, answer in encoded:
            labels = torch.tensor([[-100] * len(prompt) + answer])
            loss = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            worst = max(worst, loss.item())
        if worst < 0.02:
            break
    return _save(tmp_path_factory.mktemp("drilled"), model.eval(), tokenizer)


def _json(entry: Row) -> str:
    import json

    return json.dumps(entry["function"])


@pytest.fixture(scope="session")
def prompts(rows: list[Row]) -> list[Any]:
    """The prompts of all decisions of the rows."""
    from eval.rollouts.decisions import task_of

    return [decision.prompt for r in rows for decision in task_of(r).decisions]


@pytest.fixture
def quiet(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was written to standard error so far."""
    return lambda: capsys.readouterr().err
