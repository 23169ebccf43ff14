"""The embedded base: procedural conversations, tokenizer, template, initialisation, pretraining."""

import json
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from rise_train.tiny.optimizer import orthogonalise
from rise_train.tiny.pretrain import Batches, PretrainConfig, as_text, pretrain
from rise_train.tiny.procedural import conversation
from rise_train.tiny.structured_init import TinyShape, build_model
from rise_train.tiny.tokenizer import build_tokenizer
from synthesis.errors import UserError
from synthesis.seeds import seeded


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([as_text(conversation(seeded(1, i))) for i in range(500)], 1024)


def test_conversations_are_valid_and_repeatable():
    for i in range(200):
        talk = conversation(seeded(0, i))
        assert talk == conversation(seeded(0, i))
        schemas = {t["function"]["name"]: t["function"]["parameters"] for t in talk.tools}
        assert len(schemas) == len(talk.tools)
        assert talk.messages[0]["role"] == "user"
        assert talk.messages[-1]["role"] == "assistant"
        for message in talk.messages:
            for call in message.get("tool_calls", []):
                function = call["function"]
                Draft202012Validator(schemas[function["name"]]).validate(function["arguments"])


def test_a_word_has_the_same_tokens_after_a_space_and_after_a_quote(tokenizer):
    for word in ("quarter", "Zelbrunk", "2026", "A1"):
        bare = tokenizer(word)["input_ids"]
        for text in (f"on {word} now", f'{{"x": "{word}"}}', f"/data/{word}.xlsx"):
            ids = tokenizer(text)["input_ids"]
            assert any(ids[i : i + len(bare)] == bare for i in range(len(ids))), text


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("naïve “quotes” 漢字 🙂", "a\tb\n  c", json.dumps({"k": [1, 2.5, None]})):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_only_what_the_assistant_writes_is_marked(tokenizer):
    for i in range(50):
        talk = conversation(seeded(3, i))
        out = tokenizer.apply_chat_template(
            talk.messages, tools=talk.tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        marked = [token for token, on in zip(out["input_ids"], out["assistant_masks"], strict=True) if on]
        written = "".join(
            m["content"]
            + "".join(
                f"<|call|>{c['function']['name']}{json.dumps(c['function']['arguments'], ensure_ascii=False)}"
                for c in m.get("tool_calls", [])
            )
            + "<|end|>"
            for m in talk.messages
            if m["role"] == "assistant"
        )
        assert tokenizer.decode(marked) == written


def test_a_reply_is_parsed_back(tokenizer):
    for i in range(50):
        message = conversation(seeded(4, i)).messages[1]
        text = tokenizer.apply_chat_template([message], tokenize=False).removeprefix("<|assistant|>")
        assert tokenizer.parse_response(text, prefix="<|assistant|>")["tool_calls"] == message["tool_calls"]


def test_the_first_layer_looks_one_and_two_tokens_back():
    model = build_model(TinyShape(vocab_size=256), seed=0)
    model.set_attn_implementation("eager")
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attention = model(input_ids=ids, output_attentions=True).attentions[0]
    for head in (0, 1):
        mass = attention[:, head].diagonal(-(head + 1), 1, 2)[:, 8:].mean()
        assert mass > 0.6, (head, mass)


def test_the_structured_start_continues_repetitions_better_than_a_plain_one():
    model = build_model(TinyShape(vocab_size=256), seed=0)
    half = torch.randint(0, 256, (8, 24), generator=torch.Generator().manual_seed(1))
    ids = torch.cat([half, half], 1)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, 24:-1]
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 25:].flatten())
    assert nll < 4.5  # ln 256 = 5.55 is chance


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((2, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert values.min() > 0.5
        assert values.max() < 1.5


def _config(folder: Path, steps: int) -> PretrainConfig:
    return PretrainConfig(output_dir=str(folder), steps=steps, batch_size=4, vocab_size=1024, save_every=2, decay=0.5)


def test_a_stopped_pretraining_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("rise_train.tiny.pretrain.probe", lambda *_: {})
    pretrain(_config(tmp_path / "whole", 4))

    def stop_after_two(config: PretrainConfig, step: int) -> float:
        if step == 2:
            raise KeyboardInterrupt
        return original(config, step)

    from rise_train.tiny import pretrain as module

    original = module.rate
    monkeypatch.setattr(module, "rate", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        pretrain(_config(tmp_path / "cut", 4))
    monkeypatch.setattr(module, "rate", original)
    pretrain(_config(tmp_path / "cut", 4))
    whole, cut = ((tmp_path / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_a_batch_depends_on_the_seed_and_its_number_alone(tokenizer, tmp_path):
    config = _config(tmp_path, 10)
    first, later = Batches(config, tokenizer, 0)[5], Batches(config, tokenizer, 5)[0]
    assert all(torch.equal(first[key], later[key]) for key in first)


def test_an_unknown_field_of_the_recipe_is_named(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("output_dir: x\nstepz: 3\n")
    with pytest.raises(UserError, match="stepz"):
        PretrainConfig.load(recipe)
