"""Hand-made rows of real shape, a small tokenizer, and short trainings: what the shared fixtures are built from."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

from synthesis.seeds import digest, seeded

Row = dict[str, Any]

ROOT = Path(__file__).parents[1]
PRECISIONS: dict[str, dict[str, str]] = {
    "float32": {"dtype": "float32", "bf16": "false"},
    "autocast": {"dtype": "float32", "bf16": "true"},
    "bfloat16": {"dtype": "bfloat16", "bf16": "true"},
}
"""What a recipe says of numbers: all in float32; weights in float32 and bfloat16 to compute in; all in bfloat16."""

CITIES = ["Bern", "Oslo", "Lisbon", "Ankara", "Quito", "Dakar", "Hanoi", "Perth"]
DATES = ["2025-03-14", "2025-04-02", "2025-05-21", "2025-06-30"]
CUSTOMERS = ["Ada Blum", "Ivo Keller", "Mia Novak", "Tom Reiss"]
REASONS = ["late delivery", "wrong colour", "duplicate", "too expensive"]


def _tool(name: str, description: str, properties: dict[str, Any], required: list[str]) -> Row:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TEXT = {"type": "string"}
TOOLS = [
    _tool(
        "weather__forecast",
        "Weather of a city on a day.",
        {"city": TEXT, "date": TEXT, "units": {"type": "string", "enum": ["metric", "imperial"]}},
        ["city", "date"],
    ),
    _tool(
        "shop__find_order",
        "Find the order of a customer.",
        {"customer": TEXT, "status": {"type": "string", "enum": ["open", "paid", "sent"]}},
        ["customer"],
    ),
    _tool("shop__cancel_order", "Cancel an order.", {"order_id": TEXT, "reason": TEXT}, ["order_id"]),
    _tool(
        "calendar__add_event",
        "Put an event into the calendar.",
        {"title": TEXT, "date": TEXT, "hour": {"type": "integer"}},
        ["title", "date"],
    ),
]
TOOL_NAMES = [tool["function"]["name"] for tool in TOOLS]


def calls(*pairs: tuple[str, Row]) -> Row:
    """An assistant message with one tool call for each (name, arguments)."""
    tool_calls = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in pairs]
    return {"role": "assistant", "content": "", "tool_calls": tool_calls}


def result(name: str, text: str) -> Row:
    """A tool message."""
    return {"role": "tool", "name": name, "content": text}


def _single(i: int) -> tuple[str, list[Row], list[Row]]:
    city, date = CITIES[i % 8], DATES[i % 4]
    turn = calls(("weather__forecast", {"city": city, "date": date, "units": "metric"}))
    messages = [
        {"role": "user", "content": f"What will the weather be in {city} on {date}, in metric units?"},
        turn,
        result("weather__forecast", f"{city}: {10 + i} degrees, dry"),
        {"role": "assistant", "content": f"It will be dry at {10 + i} degrees."},
    ]
    critical = [("city", city), ("date", date), ("units", "metric")]
    return "single", messages, [{"turn": 0, "call": 0, "parameter": p, "value": v} for p, v in critical]


def _sequential(i: int) -> tuple[str, list[Row], list[Row]]:
    customer, reason, order = CUSTOMERS[i % 4], REASONS[(i + i // 4) % 4], f"O-{700 + 13 * i}"
    messages = [
        {"role": "user", "content": f"Find the open order of {customer} and cancel that order, reason: {reason}."},
        calls(("shop__find_order", {"customer": customer, "status": "open"})),
        result("shop__find_order", f"order_id: {order}, 2 items"),
        calls(("shop__cancel_order", {"order_id": order, "reason": reason})),
        result("shop__cancel_order", f"{order} cancelled"),
        {"role": "assistant", "content": f"Order {order} is cancelled."},
    ]
    critical = [(0, "customer", customer), (0, "status", "open"), (1, "reason", reason)]
    return "sequential", messages, [{"turn": t, "call": 0, "parameter": p, "value": v} for t, p, v in critical]


def _parallel(i: int) -> tuple[str, list[Row], list[Row]]:
    date, hour, city = DATES[i % 4], 8 + i % 9, CITIES[(i + 3) % 8]
    event = {"title": "Review", "date": date, "hour": hour}
    messages = [
        {
            "role": "user",
            "content": f"Add the event Review on {date} at {hour} and tell me the weather in {city} then.",
        },
        calls(("calendar__add_event", event), ("weather__forecast", {"city": city, "date": date})),
        result("calendar__add_event", "event saved"),
        result("weather__forecast", f"{city}: {5 + i} degrees, rain"),
        {"role": "assistant", "content": f"It is in the calendar; in {city} it will rain."},
    ]
    critical = [(0, "title", "Review"), (0, "date", date), (0, "hour", hour), (1, "city", city), (1, "date", date)]
    return "parallel", messages, [{"turn": 0, "call": c, "parameter": p, "value": v} for c, p, v in critical]


def _decision_turns(messages: list[Row]) -> list[int]:
    return [i for i, message in enumerate(messages) if message.get("tool_calls")]


def sft_row(index: int) -> Row:
    """Row `index` of the hand-made SFT data, as `synthesis.dataset.rows` writes it."""
    pattern, messages, critical = (_single, _sequential, _parallel)[index % 3](index)
    names = [[c["function"]["name"] for c in messages[i]["tool_calls"]] for i in _decision_turns(messages)]
    tools = copy.deepcopy(TOOLS)
    seeded(0, "tools", index).shuffle(tools)
    meta = {
        "id": digest("sample", index),
        "trajectory_id": digest("trajectory", index),
        "pattern": pattern,
        "style": "plain",
        "servers": sorted({name.split("__")[0] for turn in names for name in turn}),
        "turns": [{"calls": turn} for turn in names],
        "critical": critical,
        "primitive_ids": [digest("primitive", index, n) for n, _ in enumerate(itertools.chain(*names))],
    }
    return {"messages": messages, "tools": tools, "meta": meta}


def _other(parameter: str, value: Any) -> Any:
    if isinstance(value, int):
        return value + 2
    pools = {"city": CITIES, "date": DATES, "customer": CUSTOMERS, "reason": REASONS, "title": ["Review", "Lunch"]}
    pool = pools.get(parameter, ["open", "paid"] if parameter == "status" else ["metric", "imperial"])
    return pool[(pool.index(value) + 1) % len(pool)]


def preference_rows(row: Row) -> list[Row]:
    """The groups of one SFT row: each decision turn with ICPs, and one negative for each of (at most three) ICPs."""
    groups, meta = [], row["meta"]
    for turn, index in enumerate(_decision_turns(row["messages"])):
        critical = [c for c in meta["critical"] if c["turn"] == turn][:3]
        rejected, negatives = [], []
        for c in critical:
            after = _other(c["parameter"], c["value"])
            message = copy.deepcopy(row["messages"][index])
            message["tool_calls"][c["call"]]["function"]["arguments"][c["parameter"]] = after
            rejected.append([message])
            mutation = {"call": c["call"], "parameter": c["parameter"], "kind": "co_hyponym"}
            mutation |= {"before": c["value"], "after": after, "deleted": False}
            negative_id = digest("negative", meta["id"], turn, c["parameter"], c["call"])
            negatives.append({"id": negative_id, "kind": "co_hyponym", "score": 0.25, "mutations": [mutation]})
        first = sum(len(t["calls"]) for t in meta["turns"][:turn])
        count = len(meta["turns"][turn]["calls"])
        group_meta = {
            "id": digest("group", meta["id"], turn),
            "sample_id": meta["id"],
            "trajectory_id": meta["trajectory_id"],
            "turn": turn,
            "pattern": meta["pattern"],
            "critical": [{k: c[k] for k in ("call", "parameter", "value")} for c in critical],
            "primitive_ids": meta["primitive_ids"][first : first + count],
            "negatives": negatives,
        }
        groups.append(
            {
                "prompt": row["messages"][:index],
                "chosen": [row["messages"][index]],
                "rejected": rejected,
                "tools": row["tools"],
                "meta": group_meta,
            }
        )
    return groups


def write_dataset(folder: Path, train: list[Row], test: list[Row]) -> Path:
    """Write SFT rows and their preference groups as `sft/` and `preference/` under `folder`, with explicit features."""
    from datasets import Dataset, DatasetDict, Features, Json, List

    sft = Features({"messages": List(Json()), "tools": List(Json()), "meta": Json()})
    preference = Features(
        {
            "prompt": List(Json()),
            "chosen": List(Json()),
            "rejected": List(List(Json())),
            "tools": List(Json()),
            "meta": Json(),
        }
    )
    splits = {"train": train, "test": test}
    DatasetDict({k: Dataset.from_list(v, features=sft) for k, v in splits.items()}).save_to_disk(folder / "sft")
    groups = {k: [g for row in v for g in preference_rows(row)] for k, v in splits.items()}
    DatasetDict({k: Dataset.from_list(v, features=preference) for k, v in groups.items()}).save_to_disk(
        folder / "preference"
    )
    return folder


def build_tokenizer(template: str) -> Any:
    """A byte-level BPE tokenizer with Qwen's control tokens and the chat template `template` (its text)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    special += ["<tool_response>", "</tool_response>", "<think>", "</think>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=special[:3], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([json.dumps(sft_row(i)) for i in range(24)] + 10 * [template], trainer)
    tokenizer.add_tokens(special[3:])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = template
    fast.model_max_length = 4096
    return fast


def tiny_llama(folder: Path) -> Path:
    """Write a small random Llama (about 0.1M parameters, float32) and its tokenizer, TRL's qwen3 template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(trl_template("qwen3"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trl_template(name: str) -> str:
    """The text of one of the chat templates that TRL carries, e.g. `qwen3`."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def train(stage: str, recipe: str, model: Path, dataset: Path, out: Path, **changes: Any) -> Path:
    """Run a stage in this process, as its command would, on a few steps; returns `out`."""
    from importlib import import_module

    from rise_train.runs.recipe import parse

    arguments = flags(stage, model, dataset, out, **changes)
    recipe_path = ROOT / "recipes" / "tiny" / stage / f"config_{recipe}.yaml"
    import_module(f"rise_train.{stage}").main(*parse(stage, ["--config", str(recipe_path), *arguments]))  # type: ignore[arg-type]
    return out


def flags(stage: str, model: Path, dataset: Path, out: Path, **changes: Any) -> list[str]:
    """Command-line overrides that make a tiny recipe short."""
    values: Row = {"model_name_or_path": model, "dataset_name": dataset, "output_dir": out, "warmup_steps": 1}
    values |= {"per_device_train_batch_size": 3, "logging_steps": 1, "save_steps": 2, "num_train_epochs": 1}
    values |= {"max_pairs": 15} if stage == "dpo" else {}
    return [part for name, value in {**values, **changes}.items() for part in (f"--{name}", str(value))]
