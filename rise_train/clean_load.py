"""Load a published folder as a stranger would, and answer prompts greedily; run as a script in a process of its own.

    python -I clean_load.py FOLDER PROMPTS.json ANSWERS.json [BASE]

PROMPTS.json is a list of {"messages", "tools"}; ANSWERS.json becomes the list of generated token ids. BASE stands in
for the base that an adapter names, where that can't be fetched. Only Transformers and PEFT are imported: nothing of
rise-train may be needed to use what rise-train publishes.
"""

import json
import sys
from pathlib import Path

MAX_NEW_TOKENS = 96


def answer(folder: str, prompts: list[dict[str, list[dict[str, object]]]], base: str | None = None) -> list[list[int]]:
    """Greedy replies (token ids) of the model or adapter in `folder`, float32 on the CPU, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file():
        from peft import PeftModel

        base = base or json.loads(adapter.read_text())["base_model_name_or_path"]
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    answers = []
    for prompt in prompts:
        inputs = tokenizer.apply_chat_template(
            prompt["messages"],
            tools=prompt["tools"],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers.append([int(token) for token in output[0, inputs["input_ids"].shape[1] :]])
    return answers


if __name__ == "__main__":
    source, prompts_file, answers_file, *stand_in = sys.argv[1:]
    replies = answer(source, json.loads(Path(prompts_file).read_text()), *stand_in)
    Path(answers_file).write_text(json.dumps(replies))
