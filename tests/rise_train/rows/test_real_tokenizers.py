"""Masks, proofs, budgets and replies on the real vocabularies of the backbones' families.

RISE_TOKENIZERS names a folder that holds one folder a family (`FAMILIES`), each with the tokenizer.json and
tokenizer_config.json of a model of that family, as they are published. A family that is not there is skipped.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from handmade import ROOT, calls, preference_rows, result, sft_row
from rich.console import Console

from eval.replies import templates
from eval.replies.calls import calls_of, read_reply
from eval.replies.parsing import reply_parser
from rise_train.commands.check import check_config
from rise_train.rows.check import CheckReport, check_preference, check_sft
from rise_train.rows.masking import render_ids, use_training_template
from rise_train.rows.row_proofs import text_of
from synthesis.errors import UserError

PLACE = os.environ.get("RISE_TOKENIZERS")
FAMILIES = {
    "qwen2_5": None,
    "qwen3": None,
    "mistral_nemo": None,
    "llama3_1": "llama3_1",
    "mistral_v3": "mistral_v3",
    "deepseek_v3": "deepseek_llm",
}
"""Folder of a family, and the template that it gets; None where its stock one is to be dealt with."""
ODD = {
    "text": 'Zürich "HB", 東京 🙂 n\'t ; C:\\neu\n\t½',
    "digits": "00120450999 1,234.50",
    "spaces": "  two  spaces ",
    "json": '{"a": [1, "b"]}',
    "share": 1.5,
    "big": 10**12,
    "on": True,
    "none": None,
    "tags": ["a", "", "<b>"],
}
DECOMPOSED = "Cafe\u0301 Zu\u0308rich"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each family whose tokenizer is at hand."""
    if PLACE is None or not (Path(PLACE) / request.param / "tokenizer.json").is_file():
        pytest.skip(f"RISE_TOKENIZERS names no folder with the tokenizer of {request.param}")
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(family: str) -> Any:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(Path(str(PLACE)) / family)
    if name := FAMILIES[family]:
        found.chat_template = templates.read(name)
    use_training_template(found)
    return found


def odd_row() -> dict[str, Any]:
    """Values, results and words that tokenizers are known to change or to join."""
    turn = calls(("excel__write_data", ODD))
    messages = [
        {"role": "user", "content": "Write that down: “½ of 東京”, twice ; please .\n\n(it's for C:\\neu)"},
        turn,
        result("excel__write_data", '{"ok": true, "rows": [[1, "a\\nb"], []]}'),
        calls(("clock__now", {})),
        result("clock__now", " <li>12:00</li>\n\n"),
        {"role": "assistant", "content": "Done : 1,234.50 written."},
    ]
    return {"messages": messages, "tools": sft_row(0)["tools"][:2], "meta": {"id": "odd"}}


def decomposed_row() -> dict[str, Any]:
    """Letters with their accents as signs of their own, which Qwen's tokenizers put together."""
    messages = [
        {"role": "user", "content": f"How is the weather in {DECOMPOSED}?"},
        calls(("weather__forecast", {"city": DECOMPOSED, "date": "2025-03-14"})),
        result("weather__forecast", f"{DECOMPOSED}: dry"),
        {"role": "assistant", "content": f"It is dry in {DECOMPOSED}."},
    ]
    return {"messages": messages, "tools": sft_row(0)["tools"], "meta": {"id": "decomposed"}}


ROWS = [*(sft_row(i) for i in range(12)), odd_row(), decomposed_row()]
GROUPS = [group for row in ROWS[:12] for group in preference_rows(row)]
CONVERSATIONS = {row["meta"]["id"]: row["messages"] for row in ROWS}


def preferences(tokenizer: Any, max_length: int | None, **options: Any) -> CheckReport:
    """The check of the hand-made groups."""
    return check_preference(tokenizer, GROUPS, max_length, conversations=CONVERSATIONS, **options)


def test_every_proof_passes_and_learnt_calls_are_read_back(tokenizer: Any, family: str) -> None:
    parse = reply_parser(tokenizer)
    for row in ROWS:
        report = check_sft(tokenizer, [row], None)
        wanted = [call for message in row["messages"] for call in calls_of(message)]
        read = []
        for encoded in report.encoded:
            for (start, _), target in zip(encoded.spans, encoded.targets, strict=True):
                assert target[-1] == tokenizer.eos_token_id
                prompt, text = (text_of(tokenizer, ids) for ids in (encoded.input_ids[:start], target))
                read += read_reply(text, lambda said, prompt=prompt, row=row: parse(said, prompt, row["tools"])).calls
        assert [call.name for call in read] == [call.name for call in wanted]
        arguments = [call.arguments for call in wanted]
        if row["meta"]["id"] == "decomposed" and family.startswith("qwen"):
            arguments[0] = {**arguments[0], "city": normalize("NFC", DECOMPOSED)}
        assert [call.arguments for call in read] == arguments


def test_what_is_trained_is_what_a_server_would_ask(tokenizer: Any) -> None:
    for row in ROWS:
        report = check_sft(tokenizer, [row], None)
        if report.linear:
            continue
        places = [i for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]
        prompts = [e.input_ids[:start] for e in report.encoded for start, _ in e.spans]
        for place, prompt in zip(places, prompts, strict=True):
            assert prompt == render_ids(tokenizer, row["messages"][:place], row["tools"], serve=True)


def test_preference_pairs_and_their_budget(tokenizer: Any) -> None:
    report = preferences(tokenizer, None)
    assert (report.rows, report.lost) == (sum(len(group["rejected"]) for group in GROUPS), 0)
    for pair in report.pairs:
        assert pair.chosen_ids != pair.rejected_ids
        assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == tokenizer.eos_token_id
    longest = [max(len(g.prompt_ids) + len(a) for a in (g.chosen_ids, *g.rejected_ids)) for g in report.groups]
    assert report.budget.rows == longest
    assert preferences(tokenizer, max(longest)).budget.over == 0
    with pytest.raises(UserError, match=f"max_length: {max(longest)} keeps all"):
        preferences(tokenizer, max(longest) - 1)
    short = preferences(tokenizer, max(longest) - 1, on_overlong="drop")
    assert len(short.dropped) == longest.count(max(longest))


def test_rise_check_passes(family: str, tiny_dataset: Path, tmp_path: Path) -> None:
    """As a user runs it, on the tokenizer as it was published."""
    for path in (Path(str(PLACE)) / family).glob("tokenizer*"):
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / "config.json").write_text("{}")
    recipe = ROOT / "recipes" / "tiny" / "sft" / "config_lora.yaml"
    changes = {"model_name_or_path": tmp_path, "dataset_name": tiny_dataset, "output_dir": tmp_path / "out"}
    changes |= {"chat_template_path": FAMILIES[family]} if FAMILIES[family] else {}
    console = Console(width=200)
    with console.capture() as said:
        check_config(recipe, [part for k, v in changes.items() for part in (f"--{k}", str(v))], console=console)
    assert "check passed: 18 conversations" in said.get()


def test_a_control_token_in_a_result_is_named(tokenizer: Any) -> None:
    row = json.loads(json.dumps(odd_row()))
    row["messages"][2]["content"] = f"struck {tokenizer.eos_token} out"
    with pytest.raises(UserError, match=r"sft row 0 \(id odd\): the tool message holds the control token"):
        check_sft(tokenizer, [row], None)
