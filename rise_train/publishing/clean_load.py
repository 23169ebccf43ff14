"""Load models as a stranger would, one after the other, and answer prompts; run as a script in a process of its own.

    python -I clean_load.py QUESTIONS.json ANSWERS.json

QUESTIONS.json is {"models": [[FOLDER, BASE or null]], "prompts": [{"messages", "tools"}]}; BASE stands in for the base
that an adapter names, where that can't be fetched. ANSWERS.json becomes a list with the `Answer`s of each model, and is
written after each. Only Transformers and PEFT are imported: nothing of rise-train may be needed to use what rise-train
publishes.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

MAX_NEW_TOKENS = 96
Named = tuple[str, str | None]
"""A folder, and what stands in for the base that it names."""


class Answer(TypedDict):
    """What a model says to one prompt, and how likely it finds what the first of the models says."""

    ids: list[int]
    """Token ids of its greedy reply."""
    log_probs: list[float]
    """Log-probability of each token of the first model's reply."""
    bare: list[float]
    """The same without the adapter; empty where there is none."""


def answers(models: list[Named], prompts: list[dict[str, Any]]) -> Iterator[list[Answer]]:
    """The answers of each model; never more than one is in memory, in the type that its weights are saved in."""
    place: Any = None
    first: list[list[int]] | None = None
    for folder, base in models:
        model, tokenizer = _load(folder, base)
        place = place or _room_for(model)  # one place for all: another rounds otherwise
        model.to(place)
        inputs = [_inputs(tokenizer, prompt).to(place) for prompt in prompts]
        replies = [_greedy(model, asked) for asked in inputs]
        first = first or replies
        found = [
            Answer(ids=ids, log_probs=_log_probs(model, asked, said), bare=_without_adapter(model, asked, said))
            for ids, asked, said in zip(replies, inputs, first, strict=True)
        ]
        del model  # before the next is loaded
        yield found


def _load(folder: str, base: str | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    adapter = Path(folder) / "adapter_config.json"
    if not adapter.is_file():
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval(), tokenizer
    from peft import PeftModel

    base = base or json.loads(adapter.read_text())["base_model_name_or_path"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    return PeftModel.from_pretrained(model, folder).eval(), tokenizer


def _room_for(model: Any) -> Any:
    """The accelerator, where its free memory holds the weights and half as much again; else the CPU."""
    import torch

    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if torch.accelerator.is_available() and torch.accelerator.get_memory_info()[0] > 1.5 * weights:
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def _inputs(tokenizer: Any, prompt: dict[str, Any]) -> Any:
    return tokenizer.apply_chat_template(
        prompt["messages"], tools=prompt["tools"], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )


def _greedy(model: Any, asked: Any) -> list[int]:
    import torch

    with torch.inference_mode():
        output = model.generate(**asked, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return list(output[0, asked["input_ids"].shape[1] :].tolist())


def _log_probs(model: Any, asked: Any, said: list[int]) -> list[float]:
    import torch

    reply = torch.tensor([said], device=asked["input_ids"].device)
    with torch.inference_mode():
        ids = torch.cat([asked["input_ids"], reply], dim=1)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(said) + 1).logits[0, :-1]
    return list(logits.float().log_softmax(-1).gather(-1, reply[0, :, None])[:, 0].tolist())


def _without_adapter(model: Any, asked: Any, said: list[int]) -> list[float]:
    if not hasattr(model, "disable_adapter"):
        return []
    with model.disable_adapter():
        return _log_probs(model, asked, said)


if __name__ == "__main__":
    questions_file, answers_file = map(Path, sys.argv[1:])
    questions = json.loads(questions_file.read_text())
    done = []
    for found in answers(questions["models"], questions["prompts"]):
        done.append(found)
        answers_file.write_text(json.dumps(done))
