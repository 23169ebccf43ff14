"""A model on this machine: real ones from folders and adapters."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.policies.base import Prompt
from eval.policies.load import load_policy
from eval.policies.local import LocalPolicy
from eval.replies.calls import NO_CALL, Call
from synthesis.errors import UserError

RIGHT = [
    (Call("time__convert", {"time": "09:30", "zone": "Asia/Tokyo"}),),
    (
        Call("excel__read", {"sheet": "Orders", "rows": 3}),
        Call("time__convert", {"time": "09:30", "zone": "Asia/Tokyo"}),
    ),
    (Call("excel__read", {"sheet": "Summary"}),),
    (Call("excel__read", {"sheet": "Orders", "rows": 3}),),
]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_that_knows_the_answers_gives_them_in_any_batch(
    drilled_model: Path, prompts: list[Prompt], batch_size: int
) -> None:
    seen: list[int] = []
    replies = LocalPolicy(drilled_model, batch_size, 96).reply(prompts, seen.append)
    assert [reply.calls for reply in replies] == RIGHT
    assert not any(reply.problem or reply.truncated for reply in replies)
    assert sum(seen) == len(prompts)


def test_an_untrained_model_is_answered_for_and_never_dropped(raw_model: Path, prompts: list[Prompt]) -> None:
    replies = LocalPolicy(raw_model, 2, 8).reply(prompts)
    assert len(replies) == len(prompts)
    assert all(reply.problem == NO_CALL and reply.truncated and reply.text for reply in replies)


def test_decoding_is_greedy_whatever_the_folder_says(
    drilled_model: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(drilled_model)
    model.generation_config = GenerationConfig(do_sample=True, temperature=5.0, max_length=4)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(drilled_model).save_pretrained(tmp_path)
    assert LocalPolicy(tmp_path, 4, 96).reply(prompts[:1])[0].calls == RIGHT[0]


def test_a_cut_off_reply_is_said_to_be_cut_off(drilled_model: Path, prompts: list[Prompt]) -> None:
    reply = LocalPolicy(drilled_model, 4, 6).reply(prompts[:1])[0]
    assert reply.truncated
    assert reply.problem
    assert reply.calls == ()


def test_a_prompt_longer_than_the_context_is_wrong_not_a_crash(
    kit: Any, tokenizer: Any, prompts: list[Prompt], tmp_path: Path
) -> None:
    kit.make_model(len(tokenizer), context=310).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    replies = LocalPolicy(tmp_path, 4, 24).reply(prompts)
    assert "context holds 310" in replies[3].problem
    assert replies[0].problem == NO_CALL


@pytest.mark.parametrize("relative", [False, True])
def test_an_adapter_folder_brings_its_base(
    drilled_model: Path, prompts: list[Prompt], tmp_path: Path, relative: bool
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(drilled_model),
        LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder)
    if relative:
        (tmp_path / "adapter" / "base").symlink_to(drilled_model)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "base"}))
    assert LocalPolicy(folder, 4, 96).reply(prompts[:1])[0].calls == RIGHT[0]
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)
    adapted.save_pretrained(folder)
    if not relative:
        assert LocalPolicy(folder, 4, 96).reply(prompts[:1])[0].calls != RIGHT[0], "the adapter must count"


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, raw_model: Path, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="expected a model folder"):
        load_policy(tmp_path / "nothing")
    with pytest.raises(UserError, match="model's name after a #"):
        load_policy("http://localhost:1/v1")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="base_model_name_or_path"):
        load_policy(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="expected a JSON object"):
        load_policy(tmp_path)


def test_a_tokenizer_without_template_is_asked_in_chatml(
    kit: Any, raw_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it would be trained; where it has no stop token either, nobody can know the prompt's form."""
    from transformers import AutoModelForCausalLM

    bare = kit.make_tokenizer(["a few words"])
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(raw_model).save_pretrained(tmp_path)
    prompt = LocalPolicy(tmp_path).render(Prompt([{"role": "user", "content": "What is 09:30 in Tokyo?"}], kit.tools))
    assert "chat template: chatml, as the model brings none" in capsys.readouterr().err
    assert "time__convert" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    bare.eos_token = None
    bare.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        LocalPolicy(tmp_path)


def test_an_untrained_base_is_asked_as_a_trained_one_is(
    kit: Any, raw_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = kit.make_tokenizer(["a few words"])
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(raw_model).save_pretrained(tmp_path)
    policy = LocalPolicy(tmp_path)
    assert "chat template: deepseek_llm instead of the stock one (it shows no tools" in capsys.readouterr().err
    prompt = policy.render(Prompt([{"role": "user", "content": "What is 09:30 in Tokyo?"}], kit.tools))
    assert "time__convert" in prompt
    assert prompt.endswith("User: What is 09:30 in Tokyo?\n\nAssistant:")
    reply = policy.parse(' <tool_call>\n{"name": "time__convert", "arguments": {}}\n</tool_call>', prompt, kit.tools)
    assert reply["tool_calls"][0]["function"]["name"] == "time__convert"
