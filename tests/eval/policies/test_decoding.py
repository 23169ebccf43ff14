"""Prompts that share their beginnings are answered, token for token, as they are one by one."""

from typing import Any

import pytest
import torch
from models import VOCABULARY, small

from eval.policies import decoding
from eval.policies.decoding import chains, decode, shares

PAD, STOP, LIMIT = 0, set(range(2, VOCABULARY, 12)), 20


def prompts() -> list[list[int]]:
    """Tasks of several turns, one prompt twice, and two of one beginning of which neither holds the other."""
    draw = torch.Generator().manual_seed(4)
    words = torch.randint(3, VOCABULARY, (400,), generator=draw).tolist()
    long = words[:120]
    return [long[:30], words[200:215], long[:70], long, words[200:260], long[:30], [*long[:50], 5, 6], words[300:301]]


def alone(model: Any, prompt: list[int]) -> list[int]:
    """The reply to one prompt, by `generate` and nothing else."""
    new = model.generate(torch.tensor([prompt]), max_new_tokens=LIMIT, do_sample=False)[0, len(prompt) :].tolist()
    end = next((i for i, token in enumerate(new) if token in STOP), len(new))
    return list(new[: end + 1])


def made(kind: str, **options: Any) -> Any:
    """A model whose replies end at different lengths, and depend on all of the prompt."""
    model = small(kind, **options)
    model.generation_config.update(eos_token_id=sorted(STOP), pad_token_id=PAD)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5)
    return model


KINDS = [("llama", {}, True), ("qwen3", {}, True), ("mistral", {"sliding_window": 8}, False)]


@pytest.mark.parametrize(("kind", "options", "shared"), KINDS, ids=["llama", "qwen3", "a sliding window"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_replies_are_those_of_each_prompt_alone(
    kind: str, options: dict[str, Any], shared: bool, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "ROUND", 3)
    model, asked = made(kind, **options), prompts()
    expected = [alone(model, prompt) for prompt in asked]
    assert len(set(map(len, expected))) > 2, "replies must end in several rounds"
    assert shares(model) is shared
    told = list(decode(model, asked, STOP, PAD, LIMIT, batch_size))
    assert sorted(i for i, _ in told) == list(range(len(asked)))
    assert [reply for _, reply in sorted(told)] == expected


def test_a_task_is_computed_once_and_what_has_ended_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "ROUND", 3)
    model = made("llama")
    computed: list[int] = []
    model.get_decoder().register_forward_hook(
        lambda _module, _args, options, _output: computed.append(options["input_ids"].numel()), with_kwargs=True
    )
    replies = dict(decode(model, prompts(), STOP, PAD, LIMIT, 8))
    first, *steps = computed
    turns = [chain[-1] for chain in chains(prompts())]
    assert first == len(turns) * max(len(prompts()[i]) - 1 for i in turns)
    assert steps[0] == len(prompts())
    assert steps == sorted(steps, reverse=True)
    assert sum(steps) < len(prompts()) * max(map(len, replies.values()))


def test_chains_are_of_prompts_that_go_on() -> None:
    assert chains([[1, 2], [3], [1, 2, 4], [1, 2, 4, 5], [1, 2, 6], [1, 2]]) == [[0, 5, 2, 3], [4], [1]]
    assert chains([]) == []


def test_a_model_without_rotary_positions_gets_each_prompt_whole() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gpt_neo", vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48,
        attention_types=[[["global", "local"], 1]], window_size=8, max_position_embeddings=256,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    assert not shares(model)


def test_prompts_of_one_token_are_answered() -> None:
    model = made("llama")
    asked = [[5], [7], [5]]
    replies = dict(decode(model, asked, STOP, PAD, LIMIT, 8))
    assert [replies[i] for i in range(3)] == [alone(model, prompt) for prompt in asked]
