"""Load a published folder as a stranger would, and answer prompts greedily; run as a script in a process of its own.

    python -I clean_load.py FOLDER PROMPTS.json ANSWERS.json [BASE]

PROMPTS.json is a list of {"messages", "tools"}; ANSWERS.json becomes the list of `Answer`s. BASE stands in for the base
that an adapter names, where that can't be fetched. Only Transformers and PEFT are imported: nothing of rise-train may
be needed to use what rise-train publishes.
"""

import json
import sys
from pathlib import Path
from typing import Any, TypedDict

MAX_NEW_TOKENS = 96


class Answer(TypedDict):
    """A greedy reply: its token ids, and the sum of their log-probabilities."""

    ids: list[int]
    log_prob: float


def answer(folder: str, prompts: list[dict[str, Any]], base: str | None = None) -> list[Answer]:
    """Greedy replies of the model or adapter in `folder`, float32 on the CPU, one prompt at a time."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = _load(folder, base)
    return [_reply(model, tokenizer, prompt) for prompt in prompts]


def _load(folder: str, base: str | None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    adapter = Path(folder) / "adapter_config.json"
    if not adapter.is_file():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    from peft import PeftModel

    base = base or json.loads(adapter.read_text())["base_model_name_or_path"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, folder).eval()


def _reply(model: Any, tokenizer: Any, prompt: dict[str, Any]) -> Answer:
    import torch

    inputs = tokenizer.apply_chat_template(
        prompt["messages"], tools=prompt["tools"], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    scores = torch.cat(output.logits).log_softmax(-1).gather(-1, ids[:, None])
    return Answer(ids=ids.tolist(), log_prob=float(scores.sum()))


if __name__ == "__main__":
    source, prompts_file, answers_file, *stand_in = sys.argv[1:]
    replies = answer(source, json.loads(Path(prompts_file).read_text()), *stand_in)
    Path(answers_file).write_text(json.dumps(replies))
