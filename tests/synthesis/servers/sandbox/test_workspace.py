"""The throw-away folder: what is in it before anyone has called a tool."""

from pathlib import Path

from synthesis.servers.sandbox.workspace import template_files


def test_template_files_have_logical_paths(tmp_path: Path) -> None:
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / "chess.pgn").write_text("1. e4")
    (tmp_path / "notes.csv").write_text("a,b")
    assert template_files(tmp_path) == ["/data/games/chess.pgn", "/data/notes.csv"]
    assert template_files(None) == []
