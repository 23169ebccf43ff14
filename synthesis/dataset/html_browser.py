"""The dataset browser: one HTML file that holds its data and asks nothing of any network."""

import json
from pathlib import Path

from synthesis.dataset.reading import Stored
from synthesis.dataset.sample_pages import compact, pages, within

MAX_BYTES = 30_000_000
"""What a file may weigh; a dataset beyond it is shown by a seeded sample, and the page says so."""


def write(stored: Stored, path: Path, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """Write the browser to `path`; returns how many samples it shows, and how many there are.

    Everything from the dataset travels as JSON with `<` escaped and is put into the page as text, so a poisoned tool
    result stays text. A content policy in the page forbids every request.
    """
    found = pages(stored)
    shown = within(found, max_bytes)
    used = {name for page in shown for name in page["tools"]}
    rows = (row for split in stored.sft.values() for row in split)
    described = {
        tool["function"]["name"]: tool["function"].get("description", "") for row in rows for tool in row["tools"]
    }
    data = {"pages": shown, "total": len(found), "tools": {name: described[name] for name in sorted(used)}}
    text = compact(data).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    template = (Path(__file__).parent / "html_browser.html").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.replace("__DATA__", text), encoding="utf-8")
    return len(shown), len(found)


def embedded(page: str) -> dict[str, object]:
    """The data of a written browser, from its HTML."""
    start = page.index('type="application/json">') + len('type="application/json">')
    data: dict[str, object] = json.loads(page[start : page.index("</script>", start)])
    return data
