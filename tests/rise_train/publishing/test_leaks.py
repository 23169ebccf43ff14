"""What must not be published, secrets of all kinds and paths of this machine, is found; what only looks so is not."""

import base64
import json
from pathlib import Path

import pytest

from rise_train.publishing.leaks import find_leaks, portable
from synthesis.servers.mcp_config import load_servers

LEAKS = [
    ("README.md", "token: hf_" + "a1B2" * 9, "a Hugging Face token"),
    ("lineage.json", '{"key": "sk-' + "a1B2" * 8 + '"}', "an OpenAI or Anthropic key"),
    ("README.md", "api_org_" + "a1B2" * 9, "a Hugging Face token"),
    ("config.json", "AKIA" + "A1B2" * 4, "an AWS key"),
    ("config.json", "ASIA" + "A1B2" * 4, "an AWS key"),
    ("lineage.json", '{"aws_secret_access_key": "' + "a1B/" * 10 + '"}', "an AWS secret"),
    ("README.md", "export AWS_SECRET_ACCESS_KEY=" + "a1B/" * 10, "an AWS secret"),
    ("lineage.json", "glpat-" + "a1B2" * 5, "a GitLab token"),
    ("lineage.json", "sk_live_" + "a1B2" * 5, "a Stripe key"),
    ("lineage.json", "pypi-" + "AgEI" * 15, "a token of a package index"),
    ("lineage.json", "npm_" + "a1B2" * 9, "a token of a package index"),
    ("lineage.json", "xoxb-" + "1234567890-ab", "a Slack token"),
    ("lineage.json", "AIza" + "a1B2x" * 7, "a Google key"),
    ("lineage.json", ".".join(["eyJ" + "a1B2" * 4] * 3), "a signed token (JWT)"),
    ("examples.json", '{"Authorization": "Bearer ' + "a1B2" * 5 + '"}', "a bearer token"),
    ("examples.json", "postgresql://shop:" + "opensesame@db.example/x", "a password in an address"),
    ("README.md", "-----BEGIN " + "OPENSSH PRIVATE KEY-----", "a private key"),
    ("README.md", "-----BEGIN " + "PRIVATE KEY-----", "a private key"),
    ("README.md", "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----", "a private key"),
    ("tokenizer.json", "ghp_" + "a1B2" * 9, "a GitHub token"),
    ("README.md", "--config " + "/home" + "/someone/recipe.yaml", "a path of some machine"),
    ("README.md", "see /srv/models/base/config.json", "a path of this machine"),
    ("tokenizer.json", '"/srv/models/base"', "a path of this machine"),
    ("README.md", "the-password-of-the-test", "the value of $RISE_TEST_PASSWORD"),
]


@pytest.mark.parametrize(("name", "text", "what"), LEAKS, ids=[f"{name}: {what}" for name, _, what in LEAKS])
def test_leaks_are_found(name: str, text: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISE_TEST_PASSWORD", "the-password-of-the-test")
    (tmp_path / name).write_text(text)
    found = find_leaks(tmp_path, ["/srv/models/base"])
    assert [(leak.file, leak.what) for leak in found] == [(name, what)]
    assert len(found[0].excerpt) < len(text)


def test_the_secrets_of_the_servers_are_found_in_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_LOGIN", "correct horse")
    env = {"LOGIN": "${SHOP_LOGIN}", "PIN": "open-sesame", "TZ": "Europe/Bern"}
    entries = {"shop": {"command": "shop", "env": env}, "time": {"command": "time"}}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": entries}))
    servers = load_servers(tmp_path / "mcp.json").servers
    (tmp_path / "out").mkdir()
    for text in ("a correct horse", "it is open-sesame", base64.b64encode(b"x: correct horse").decode()):
        (tmp_path / "out" / "examples.json").write_text(text)
        assert [leak.what for leak in find_leaks(tmp_path / "out", [], servers)] == ["a secret of the server 'shop'"]
    (tmp_path / "out" / "examples.json").write_text("The time in Europe/Bern.")
    assert find_leaks(tmp_path / "out", [], servers) == []


def test_the_metadata_of_weights_is_searched(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"from": "/srv/models/base"})
    assert [leak.what for leak in find_leaks(tmp_path, ["/srv/models/base"])] == ["a path of this machine"]


def test_what_only_looks_like_a_leak_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"/home/": 5, "/tmp/x": 6}')
    (tmp_path / "README.md").write_text(
        "Read /data/sales.xlsx; see https://hub/home/x, http://127.0.0.1:80/v1, ${USER}@host, RUN/tmp/y and sk-short. "
        "Authorization: Bearer TOKEN; https://user:${PASSWORD}@host; aws_secret_access_key from the environment"
    )
    assert find_leaks(tmp_path, []) == []


def test_paths_become_portable_at_any_depth() -> None:
    home = "/home" + "/someone"
    content = {"a": [f"{home}/run/models/sft", {"b": f"--base {home}/other/base --x 1"}], "n": 3}
    assert portable(content, {f"{home}/run": "RUN"}) == {"a": ["RUN/models/sft", {"b": "--base base --x 1"}], "n": 3}
