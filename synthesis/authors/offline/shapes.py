"""Deviating values for what has a shape: numbers, dates, times, zones, colours, paths, cells, formulas, SQL."""

import calendar
import posixpath
import random
import re
from datetime import date, timedelta

from synthesis.records import Json, MutationKind
from synthesis.text.arithmetic import arithmetic
from synthesis.text.kinds import CELL
from synthesis.text.lexicon import lexicon
from synthesis.text.similarity import similarity, typos

Option = tuple[MutationKind, Json]
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")


def numbers(value: float | int, rng: random.Random) -> list[Option]:
    """A number: neighbours, rounded (broader), one decimal more (narrower), negated, digits misread, or far off."""
    whole = isinstance(value, int)
    step = rng.choice([1, 2]) if abs(value) < 100 else 10 ** (len(str(int(abs(value)))) - 2)
    found: list[Option] = [("co_hyponym", _tidy(value + step, whole)), ("co_hyponym", _tidy(value - step, whole))]
    found.append(("co_hyponym", _tidy(value + 2.5 * step if not whole else value + 3 * step, whole)))
    size = 10 ** max(len(str(int(abs(value)))) - 1, 0 if not whole else 1)
    found.append(("hypernym", _tidy(round(value / size) * size, whole)))
    if not whole:
        found.append(("hyponym", _tidy(value + rng.choice([0.1, 0.25, 0.4]), whole)))
        found.append(("hypernym", _tidy(float(round(value)), whole)))
    if value and (value < 0 or not whole):
        found.append(("antonym", -value))
    found += [("lexical_similarity", number) for number in _misread(value, whole)]
    found += [
        ("irrelevance", _tidy(value * factor + extra, whole))
        for factor, extra in rng.sample([(10, 0), (100, 0), (7, 40), (12, 3)], 2)
    ]
    return [(kind, number) for kind, number in found if number >= 0 or value < 0 or kind == "antonym"]


def _tidy(number: float, whole: bool) -> float | int:
    return round(number) if whole else round(float(number), 6)


def _misread(value: float | int, whole: bool) -> list[float | int]:
    """The number with digits swapped, doubled or left out, or one taken for a digit that looks alike."""
    digits = str(abs(value))
    sign = -1 if value < 0 else 1
    forms = [digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :] for i in range(len(digits) - 1)]
    forms += [digits[0] + digits, digits[1:], digits[:-1]]
    forms += [
        {"1": "7", "7": "1", "3": "8", "8": "3", "6": "9", "9": "6", "5": "6", "0": "8"}.get(digits[0], "") + digits[1:]
    ]
    found = [form for form in forms if re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", form)]
    return [sign * (int(form) if whole else float(form)) for form in found if whole is ("." not in form) or not whole]


def dates(value: str, rng: random.Random) -> list[Option]:
    """A calendar day: neighbours, the month's or year's first day (broader), day and month swapped, or far off."""
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return [("lexical_similarity", typo) for typo in typos(value, rng)]
    near = [day + timedelta(days=shift) for shift in (1, -1, 7, -7)]
    last = day.replace(day=calendar.monthrange(day.year, day.month)[1])
    found: list[Option] = [("co_hyponym", d.isoformat()) for d in rng.sample(near, 3)]
    found += [("hypernym", day.replace(day=1).isoformat()), ("hypernym", day.replace(month=1, day=1).isoformat())]
    found += [("antonym", (last if day.day <= 15 else day.replace(day=1)).isoformat())]
    if day.day <= 12 and day.day != day.month:
        found.append(("lexical_similarity", day.replace(month=day.day, day=day.month).isoformat()))
    found += [("lexical_similarity", typo) for typo in typos(value, rng) if _is_day(typo)]
    found.append(("lexical_similarity", (day - timedelta(days=365)).isoformat()))
    found.append(("irrelevance", (day + timedelta(days=rng.randint(60, 300))).isoformat()))
    return found


def _is_day(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def times(value: str, rng: random.Random) -> list[Option]:
    """A time of day: neighbours, the full hour (broader), a.m. for p.m., digits swapped, or another time altogether."""
    hour, minute = (int(part) for part in value.split(":"))

    def at(minutes: int) -> str:
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"

    now = 60 * hour + minute
    found: list[Option] = [("co_hyponym", at(now + shift)) for shift in rng.sample([30, -30, 60, -60, 15], 3)]
    found += [("antonym", at(now + 720)), ("hypernym", at(60 * hour)), ("hypernym", at(60 * (hour + (minute >= 30))))]
    found += [("hyponym", at(now + rng.choice([1, 2, 3, 5])))]
    swapped = [f"{value[1]}{value[0]}{value[2:]}", f"{value[:-2]}{value[-1]}{value[-2]}"] if len(value) == 5 else []
    found += [("lexical_similarity", t) for t in swapped if re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", t)]
    found.append(("irrelevance", at(now + rng.randint(200, 600))))
    return found


def zones(value: str, rng: random.Random) -> list[Option]:
    """A time zone: another city of the region, the region's zone (broader), a name alike, another continent."""
    lex = lexicon()
    region = value.split("/")[0]
    known = {f"{area}/{city}": area for area, cities in lex.zones.items() for city in cities}
    near = [zone for zone, area in known.items() if area == region and zone != value]
    far = [zone for zone, area in known.items() if area != region]
    found: list[Option] = [("co_hyponym", zone) for zone in rng.sample(near, min(3, len(near)))]
    found += [("irrelevance", zone) for zone in rng.sample(far, 2)]
    found.append(("hypernym", lex.zone_families.get(region, "Etc/GMT")))
    city = value.split("/")[-1]
    alike = sorted(far + near, key=lambda zone: -similarity(city, zone.split("/")[-1]))
    return [*found, *(("lexical_similarity", zone) for zone in alike[:2])]


def colors(value: str, rng: random.Random) -> list[Option]:
    """A hexadecimal colour: another named colour, its opposite, a digit misread."""
    mark = "#" if value.startswith("#") else ""
    bare = value.removeprefix("#")
    others = [code for code in lexicon().colors.values() if code.casefold() != bare.casefold()]
    found: list[Option] = [("co_hyponym", mark + code) for code in rng.sample(others, 3)]
    found.append(("antonym", f"{mark}{0xFFFFFF - int(bare, 16):06X}"))
    found.append(("irrelevance", f"{mark}{rng.randrange(1 << 24):06X}"))
    swapped = [bare[:i] + bare[i + 1] + bare[i] + bare[i + 2 :] for i in range(5)]
    return [*found, *(("lexical_similarity", mark + code) for code in rng.sample(swapped, 2))]


def paths(value: str, rng: random.Random) -> list[Option]:
    """A path: the folder (broader), a file in it (narrower), a sibling, a name alike, or another kind of file."""
    folder, base = posixpath.split(value.rstrip("/"))
    stem, suffix = posixpath.splitext(base)
    lex = lexicon()

    def sibling(name: str, ending: str = suffix) -> str:
        return posixpath.join(folder, name + ending)

    words = re.split(r"[_-]", stem)
    found: list[Option] = [("hypernym", folder)] if len(folder) > 1 else []
    if suffix:
        found += [("hyponym", sibling(f"{stem}_{mark}")) for mark in rng.sample(["final", "draft", "2025", "march"], 2)]
    else:
        found += [("hyponym", posixpath.join(value, name)) for name in rng.sample(["archive", "drafts", "old"], 2)]
    found += [("co_hyponym", sibling(other)) for other in rng.sample(lex.classes["document"], 2)]
    found += [("antonym", sibling(stem.replace(word, opposite))) for word in words for opposite in lex.opposites(word)]
    found.append(("lexical_similarity", sibling(stem[:-1] if stem.endswith("s") else stem + "s")))
    found += [("lexical_similarity", sibling(typo)) for typo in typos(stem, rng)[:2]]
    found.append(("irrelevance", sibling(rng.choice(lex.unrelated), suffix)))
    return found


def cells(value: str, rng: random.Random) -> list[Option]:
    """A cell or range: neighbours, a range around it (broader), a part of it (narrower), misread, or far away."""
    match = CELL.fullmatch(value)
    if match is None:
        return []
    first, row, last, end = match[1], int(match[2]), match[3], int(match[4] or 0)
    column = _column(first)
    if last:
        far, near = f"{_letters(_column(last) + 1)}{end}", f"{last}{end + rng.choice([1, 2, 3])}"
        found: list[Option] = [("hypernym", f"{first}{row}:{near}"), ("hypernym", f"{first}{row}:{far}")]
        found += [("hyponym", f"{first}{row}"), ("hyponym", f"{first}{row}:{last}{max(row, end - 1)}")]
        found += [("co_hyponym", f"{_letters(column + 1)}{row}:{_letters(_column(last) + 1)}{end}")]
        found += [("co_hyponym", f"{first}{row + 1}:{last}{end + 1}")]
        found += [("lexical_similarity", f"{first}{row}:{last}{_digit(end, rng)}")]
        return [*found, ("irrelevance", f"{_letters(column + 9)}{row + 40}:{_letters(column + 10)}{row + 45}")]
    found = [("hypernym", f"{first}{row}:{_letters(column + 1)}{row + 1}"), ("hypernym", f"{first}:{first}")]
    found += [("co_hyponym", f"{_letters(column + 1)}{row}"), ("co_hyponym", f"{first}{row + 1}")]
    found += [("co_hyponym", f"{_letters(column - 1)}{row}")] if column > 1 else []
    found += [("co_hyponym", f"{first}{row - 1}")] if row > 1 else []
    found += [("lexical_similarity", f"{first}{_digit(row, rng)}"), ("lexical_similarity", f"{first}{first}{row}")]
    if column <= 26 and row <= 26 and column != row:
        found.append(("antonym", f"{_letters(row)}{column}"))
    return [*found, ("irrelevance", f"{_letters(column + rng.randint(8, 12))}{row + rng.randint(30, 60)}")]


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number


def _letters(number: int) -> str:
    text = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        text = chr(65 + rest) + text
    return text


def _digit(row: int, rng: random.Random) -> int:
    """The row number misread: a digit doubled or its digits swapped."""
    text = str(row)
    return int(rng.choice([text + text[-1], text[::-1]])) if int(text[::-1]) not in (0, row) else int(text + text[-1])


def expressions(value: str, rng: random.Random) -> list[Option]:
    """An arithmetic expression: an operator or number changed, a term more or less."""
    found = _replaced_numbers(value, rng)
    for mark, other in {"+": "-", "-": "+", "*": "/", "/": "*"}.items():
        places = [m.start() for m in re.finditer(rf"(?<=[\w)\s]){re.escape(mark)}(?=[\s\w(])", value)]
        places = [i for i in places if value[i - 1 : i] != "*" and value[i + 1 : i + 2] != "*"]
        if places:
            i = rng.choice(places)
            found.append(("antonym", value[:i] + other + value[i + 1 :]))
    terms = re.split(r"\s*[+*/-]\s*(?=[\w(])", value)
    if len(terms) > 1 and value.count("(") == value.count(")") and "(" not in terms[-1] and ")" not in terms[-1]:
        found.append(("hypernym", value[: value.rindex(terms[-1])].rstrip(" +-*/")))
    found.append(("hyponym", f"{value} {rng.choice('+-')} {rng.randint(1, 9)}"))
    found += [("co_hyponym", value.replace("sqrt(", "abs("))] if "sqrt(" in value else []
    found.append(("irrelevance", f"{rng.randint(11, 99)} {rng.choice('+*')} {rng.randint(11, 99)}"))
    known = arithmetic(value)
    return [(kind, text) for kind, text in found if text and (known is None or arithmetic(str(text)) is not None)]


def _replaced_numbers(value: str, rng: random.Random) -> list[Option]:
    """One number of the text exchanged for a neighbour or for a misreading of it."""
    spots = list(_NUMBER.finditer(value))
    found: list[Option] = []
    for spot in rng.sample(spots, min(2, len(spots))):
        number = float(spot[0]) if "." in spot[0] else int(spot[0])
        options = [(kind, n) for kind, n in numbers(number, rng) if kind in ("co_hyponym", "lexical_similarity")]
        for kind, other in options[:1] + options[-1:]:
            found.append((kind, value[: spot.start()] + str(other) + value[spot.end() :]))
    return found


def statements(value: str, rng: random.Random) -> list[Option]:
    """An SQL statement: an opposite keyword, another number or name, without its condition, or with a limit."""
    found = _replaced_numbers(value, rng)
    for first, second in (("ASC", "DESC"), ("MIN", "MAX"), (">", "<"), ("SUM", "AVG"), ("AND", "OR"), ("=", "<>")):
        for old, new in ((first, second), (second, first)):
            pattern = rf"\b{old}\b" if old.isalpha() else rf"(?<![<>!]){old}(?![=>])"
            if re.search(pattern, value, re.IGNORECASE):
                found.append(("antonym", re.sub(pattern, new, value, count=1, flags=re.IGNORECASE)))
    shorter = re.sub(r"(?is)\s+(where|order by|limit|group by)\s.*$", "", value)
    found += [("hypernym", shorter)] if shorter != value and value[:6].upper() == "SELECT" else []
    if value[:6].upper() == "SELECT" and "limit" not in value.casefold():
        found.append(("hyponym", f"{value.rstrip('; ')} LIMIT {rng.choice([1, 2, 3, 5])}"))
    words = re.findall(r"(?<![\w'])[a-z_]{4,}(?![\w'(])", value)
    for word in rng.sample(words, min(2, len(words))):
        wrong = word[:-1] if word.endswith("s") else word + "s"
        found.append(("lexical_similarity", re.sub(rf"\b{word}\b", wrong, value, count=1)))
    for quoted in re.findall(r"'([^']+)'", value):
        others = lexicon().siblings(quoted) or [rng.choice(lexicon().unrelated)]
        kind: MutationKind = "co_hyponym" if lexicon().siblings(quoted) else "irrelevance"
        found.append((kind, value.replace(f"'{quoted}'", f"'{rng.choice(others)}'")))
    for word in rng.sample(words, min(4, len(words))):
        for other in rng.sample(options := lexicon().siblings(word), min(1, len(options))):
            found.append(("co_hyponym", re.sub(rf"\b{word}\b", other, value, count=1)))
    found.append(("irrelevance", f"SELECT COUNT(*) FROM {rng.choice(['logs', 'settings', 'sessions', 'pages'])}"))
    return found


def addresses(value: str, rng: random.Random) -> list[Option]:
    """An e-mail or web address: misread, another ending, another name, the site alone (broader)."""
    found: list[Option] = [("lexical_similarity", typo) for typo in typos(value.split("/")[-1], rng)[:2]]
    head = value[: len(value) - len(value.split("/")[-1])]
    found = [(kind, head + str(text)) for kind, text in found]
    found += [
        ("co_hyponym", re.sub(r"\.(\w{2,3})(?=/|$)", f".{ending}", value, count=1)) for ending in ("com", "org", "net")
    ]
    if "@" in value:
        person = rng.choice(lexicon().classes["person"]).lower()
        return [
            *found,
            ("co_hyponym", f"{person}@{value.split('@')[1]}"),
            ("irrelevance", f"info@{rng.choice(lexicon().unrelated)}.net"),
        ]
    site = re.match(r"[a-z]+://[^/]+", value)
    found += [("hypernym", site[0])] if site and site[0] != value else []
    return [*found, ("hyponym", f"{value.rstrip('/')}/{rng.choice(['news', 'about', 'archive'])}")]


def identifiers(value: str, rng: random.Random) -> list[Option]:
    """An identifier: the next number, a part of it (broader), an addition (narrower), misread, or a foreign one."""
    found: list[Option] = []
    for spot in list(re.finditer(r"\d+", value))[-1:]:
        for shift in rng.sample([1, -1, 2, 10], 4):
            number = int(spot[0]) + shift
            if number >= 0:
                found.append(
                    ("co_hyponym", value[: spot.start()] + str(number).zfill(len(spot[0])) + value[spot.end() :])
                )
    found += [("lexical_similarity", typo) for typo in typos(value, rng)[:3]]
    parts = re.split(r"[-_.~:#]", value)
    found += [("hypernym", parts[0])] if len(parts) > 1 and parts[0] else []
    mark = "_" if "_" in value else "-"
    found.append(("hyponym", f"{value}{mark}{rng.choice(['old', 'new', 'copy', 'draft'])}"))
    found += [("antonym", value.replace(p, o)) for p in parts for o in lexicon().opposites(p)]
    found.append(("irrelevance", f"{rng.choice(lexicon().unrelated)}{mark}{rng.randint(1, 99)}"))
    return found
