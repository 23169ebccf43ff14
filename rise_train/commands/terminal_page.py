"""One page of a dataset in the terminal."""

import json
from typing import TYPE_CHECKING

from synthesis.dataset.sample_pages import Page, difference
from synthesis.dataset.source import Row
from synthesis.text.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def show(console: "Console", page: Page) -> None:
    """Print request, steps with their results, the right call and under it each deviating one, and the ids."""
    from rich.rule import Rule
    from rich.text import Text

    facts = [page["split"], page["pattern"], page["style"], *page["servers"], *page["difficulty"]]
    console.print(Rule(Text(" · ".join(facts), style="dim"), align="left", style="dim"))
    console.print(Text(visible(page["request"]), style="bold"))
    for number, turn in enumerate(page["turns"], 1):
        console.print(Text(f"\nturn {number} of {len(page['turns'])}", style="dim"))
        console.print(_calls(turn["calls"], turn["calls"], turn["critical"]))
        for result in turn["results"]:
            console.print(Text("  -> " + visible(result), style="dim"))
        for negative in turn["negatives"]:
            told = [negative["kind"], negative["executed"] or "not executed", f"score {negative['score']:.2f}"]
            console.print(Text(f"  deviates: {', '.join(told)}  {negative['id']}", style="red"))
            console.print(_calls(negative["calls"], turn["calls"], turn["critical"]))
    console.print(Text("\n" + visible(page["response"])))
    console.print(Text("\ntools in the prompt: " + ", ".join(page["tools"]), style="dim"))
    console.print(Text(f"sample {page['id']}, trajectory {page['trajectory']}", style="dim"))
    groups = [turn["group"] for turn in page["turns"] if turn["group"]]
    console.print(Text(f"groups {', '.join(groups)}; real calls {', '.join(page['primitives'])}", style="dim"))


def _calls(made: list[Row], right: list[Row], critical: list[list[object]]) -> "Text":
    """Calls, one a line; a differing value is marked and what was asked stands behind it; ICPs are underlined."""
    from rich.text import Text

    text = Text()
    for index, call in enumerate(made):
        changed = difference(right, made, index)
        other = call["name"] != right[index]["name"]
        text.append("\n" if index else "").append("  " + call["name"], style="reverse red" if other else "green")
        asked = right[index]["arguments"]
        for name in {**call["arguments"], **({} if other else asked)}:
            text.append(f"\n    {name}", style="underline" if [index, name] in critical else "").append(": ")
            if name in call["arguments"]:
                marked = name in changed and not other
                text.append(_json(call["arguments"][name]), style="reverse red" if marked else "")
            else:
                text.append("left out", style="reverse red")
            if name in changed and not other:
                text.append(f"  asked: {_json(asked[name])}" if name in asked else "  not asked for", style="dim")
    return text


def _json(value: object) -> str:
    return visible(json.dumps(value, ensure_ascii=False))
