"""What a call leaves behind: whether a tool only looks."""

import re
from itertools import pairwise

from synthesis.records import Tool

_READ_VERBS = """analyze calculate check compare convert count describe detect diff evaluate extract fetch find get info
inspect is list log look lookup query read search show status validate verify view"""
READ_VERBS = frozenset(_READ_VERBS.split())
"""First words of tool names that only look; used where the server gives no `readOnlyHint`."""
_CHANGING_VERBS = "add apply create delete fix insert move remove rename replace save set update write"
CHANGING_VERBS = frozenset(_CHANGING_VERBS.split())
"""Words that make a tool a writing one wherever they stand after an "and": `search_and_replace`."""
OPENING_VERBS = frozenset({"connect", "load", "login", "new", "open", "select", "start", "switch", "use"})


def reads_only(tool: Tool) -> bool:
    """Whether the tool only looks: by its own hint, else by the first word of its name.

    A hint is not believed of a tool that opens something: later calls then refer to what is open.
    """
    verb, *others = re.split(r"[_\-\s]", tool.name.lower())
    if any(word == "and" and after in CHANGING_VERBS for word, after in pairwise(others)):
        return False
    return verb in READ_VERBS or (tool.read_only and verb not in OPENING_VERBS)
