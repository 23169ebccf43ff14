"""Reading a tool's JSON schema."""

from typing import Any

import pytest
from fakes import TOOLS

from synthesis.authors.offline.guesses import samples
from synthesis.records import Tool
from synthesis.schemas import (
    accepts,
    arguments_fault,
    fault,
    in_order,
    properties,
    required,
    resolved,
    schema_of,
    type_of,
    validator,
)

TOOL = TOOLS["weather__get_forecast"]


def test_arguments_fault_names_the_fault() -> None:
    assert arguments_fault(TOOL, {"city": "Bern"}) == ""
    assert "'city' is a required property" in arguments_fault(TOOL, {"day": "Friday"})
    assert arguments_fault(TOOL, {"city": "Bern", "mood": 1}) == "unknown parameter 'mood'"
    assert "is not of type 'string'" in arguments_fault(TOOL, {"city": 3})


def test_arguments_stand_in_the_order_of_the_schema() -> None:
    tool = TOOLS["weather__get_forecast"]
    assert list(in_order(tool, {"day": "Friday", "city": "Bern"})) == ["city", "day"]


def test_a_part_is_judged_with_the_whole_around_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "width": {"$ref": "#/properties/size"},
            "unit": {"$ref": "#/definitions/unit"},
            "place": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]},
            "open": True,
            "closed": False,
        },
        "definitions": {"unit": {"enum": ["cm", "km"]}},
        "$defs": {"place": {"type": ["null", "string"], "maxLength": 4}},
    }
    tool = Tool(server="s", name="t", input_schema=schema)
    assert accepts(tool, "width", 3)
    assert not accepts(tool, "width", "3")
    assert [unit for unit in ("cm", "m", "km") if accepts(tool, "unit", unit)] == ["cm", "km"]
    assert accepts(tool, "place", "Bern")
    assert not accepts(tool, "place", "Geneva")
    assert accepts(tool, "open", object)
    assert not accepts(tool, "closed", 1)
    assert accepts(tool, "unheard_of", 1)
    assert arguments_fault(tool, {"width": 3, "unit": "cm", "open": [None]}) == ""
    assert "'m' is not one of" in arguments_fault(tool, {"unit": "m"})
    assert required({"required": None}) == required({}) == []
    assert list(properties(schema)) == ["size", "width", "unit", "place", "open", "closed"]


def test_the_declared_type_is_read_through_references_and_alternatives() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/n", "description": "of a"}}, "$defs": {"n": {"type": "number"}}}
    tool = Tool(server="s", name="t", input_schema=schema)
    assert resolved(schema_of(tool, "a"), schema) == {"type": "number", "description": "of a"}
    assert type_of, (
        validator(resolved({"oneOf": [{"type": "null"}, {"type": ["null", "integer"]}]}, schema)) == "integer"
    )
    assert type_of({}) == "string"


USABLE: dict[str, dict[str, Any]] = {
    "true": {"a": True},
    "into properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}},
    "escaped": {"a/b": {"type": "string"}, "b": {"$ref": "#/properties/a~1b"}},
    "tuple of draft 7": {"a": {"type": "array", "items": [{"type": "number"}, {"type": "string"}], "minItems": 2}},
    "tuple": {"a": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "minItems": 2}},
    "any items": {"a": {"type": "array", "items": True}},
    "alternatives": {"a": {"anyOf": [True, {"type": "null"}]}},
}


@pytest.mark.parametrize("members", USABLE.values(), ids=USABLE)
def test_what_can_be_read_is_used(members: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": members}
    assert fault(schema) == ""
    odd = Tool(server="s", name="t", input_schema=schema)
    for name in members:
        values = samples(name, schema_of(odd, name), schema)
        assert values
        assert all(accepts(odd, name, value) for value in values)


UNUSABLE: dict[str, tuple[Any, str]] = {
    "remote": ({"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}, "nothing is fetched"),
    "remote, below": ({"$defs": {"b": {"anyOf": [{"$ref": "other.json#/x"}]}}}, "nothing is fetched"),
    "nowhere": ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "which is not in it"),
    "itself": ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/properties/a"}}}, "to itself"),
    "unknown type": ({"properties": {"a": {"type": "int"}}}, "no JSON schema at properties/a/type"),
    "null": ({"properties": {"a": {}}, "required": None}, "no JSON schema at required"),
    "pattern": ({"properties": {"a": {"type": "string", "pattern": "^\\p{L}+$"}}}, "pattern"),
    "pattern of names": ({"patternProperties": {"(?<y>a)": {}}}, "(?<y>a)"),
    "wrong for its draft": (
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"a": {"items": [{}]}}},
        "properties/a/items",
    ),
    "no object": ([], "no object"),
}


@pytest.mark.parametrize(("schema", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_read_is_told_in_a_sentence(schema: Any, said: str) -> None:
    assert said in fault(schema)
    assert "\n" not in fault(schema)


FORMATS = ["date", "date-time", "time", "duration", "email", "uuid", "ipv4", "ipv6", "hostname", "uri"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_has_values_of_its_own_and_refuses_others(form: str) -> None:
    schema = {"type": "object", "properties": {"begin": {"type": "string", "format": form}}}
    tool = Tool(server="s", name="t", input_schema=schema)
    values = samples("begin", schema_of(tool, "begin"), schema)
    assert len(values) > 1
    assert all(accepts(tool, "begin", value) for value in values)
    assert not accepts(tool, "begin", "in the garden")
    assert form == "hostname" or not accepts(tool, "begin", "garden")


def test_a_schema_itself_only_names_a_format() -> None:
    schema = {"type": "string", "format": "date"}
    assert validator(schema, schema).is_valid("tomorrow")
    assert not validator(schema, schema, formats=True).is_valid("tomorrow")
    assert validator({"format": "phone"}, {}, formats=True).is_valid("tomorrow"), "unknown formats hold nothing back"
