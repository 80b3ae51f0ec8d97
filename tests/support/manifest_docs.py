"""The tables of `docs/manifest.md`, made of the model. Run as a script it writes them into the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from memferry.manifest import KINDS
from memferry.manifest.words import ALLOWED

__all__ = ["PAGE", "backend", "filled", "migration"]

PAGE = Path(__file__).parents[2] / "docs" / "manifest.md"


def _of(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema behind references and `or null`."""
    for one in schema.get("anyOf", []):
        if one.get("type") != "null":
            return _of({**one, "or null": True}, definitions)
    if "$ref" in schema:
        return {**definitions[schema["$ref"].rsplit("/", maxsplit=1)[-1]], "or null": schema.get("or null", False)}
    return schema


def _allowed(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a value may be, in words."""
    kind = schema.get("type")
    text = "object"
    if "enum" in schema:
        text = ", ".join(f"`{value}`" if value else "empty" for value in schema["enum"])
    elif kind == "integer":
        text = f"{schema['minimum']:,} to {schema['maximum']:,}"
    elif kind == "boolean":
        text = "`true`, `false`"
    elif kind == "array":
        text = f"at most {schema['maxItems']} of: {_allowed(_of(schema['items'], definitions), definitions)}"
    elif kind == "object" and "properties" not in schema:
        text = f"at most {schema['maxProperties']} texts by key"
    elif kind == "string":
        words = ALLOWED[schema["pattern"]] if "pattern" in schema else "text"
        bounds = [rule["message"].removeprefix("allowed: ") for rule in schema.get("x-kubernetes-validations", ())]
        text = f"{words}, {bounds[0]}" if bounds else f"{words}, at most {schema['maxLength']:,} characters"
    return text


def _rows(schema: dict[str, Any], path: str, definitions: dict[str, Any]) -> list[str]:
    rows = []
    for name, field in schema["properties"].items():
        behind = _of(field, definitions)
        here = f"{path}{name}"
        needed = "needed" if name in schema.get("required", []) else ""
        default = field.get("default")
        shown = needed or (
            ""
            if default in (None, "") or isinstance(default, dict)
            else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        meaning = field.get("description", behind.get("description", "")).rstrip(".")
        rows.append(f"| `{here}` | {_allowed(behind, definitions)} | {shown} | {meaning} |".replace("|  |", "| |"))
        if behind.get("type") == "object" and "properties" in behind:
            rows += _rows(behind, f"{here}.", definitions)
        if behind.get("type") == "array":
            each = _of(behind["items"], definitions)
            if "properties" in each:
                rows += _rows(each, f"{here}[].", definitions)
    return rows


def _table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    head = "| field | allowed | default | meaning |\n|---|---|---|---|\n"
    spec = schema["properties"].get("spec") or schema["properties"]["data"]
    rows = _rows(_of(spec, definitions), "spec.", definitions)
    return head + "\n".join(rows) + "\n" + _rules(_of(spec, definitions), "spec", definitions)


def _rules(schema: dict[str, Any], path: str, definitions: dict[str, Any]) -> str:
    """What fields must fulfil together, a line for each."""
    lines = [f"- `{where}`: {text}\n" for where, text in dict.fromkeys(_each_rule(schema, path, definitions))]
    return "\n" + "".join(lines) if lines else ""


def _each_rule(schema: dict[str, Any], path: str, definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()) if "properties" in schema else ():
        yield f"{path}{rule.get('fieldPath', '')}", rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _each_rule(_of(field, definitions), f"{path}.{name}", definitions)
    if "items" in schema:
        yield from _each_rule(_of(schema["items"], definitions), f"{path}[]", definitions)


def filled(page: str) -> str:
    """The page with its tables as the model says them."""
    for kind, model in KINDS.items():
        if kind == "ConfigMap":
            continue
        begin, end = f"<!-- {kind} -->\n", f"<!-- end {kind} -->"
        assert begin in page, kind
        before, rest = page.split(begin, 1)
        page = before + begin + _table(model) + end + rest.split(end, 1)[1]
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")


def backend(name: str = "a", spec: str = "{backend: embedded, path: a.db}") -> str:
    return f"apiVersion: memferry.dev/v1alpha1\nkind: MemoryBackend\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def migration(more: str = "", *, name: str = "move", source: str = "a", target: str = "b") -> str:
    return (
        f"apiVersion: memferry.dev/v1alpha1\nkind: MemoryMigration\nmetadata: {{name: {name}}}\nspec:\n"
        f"  source: {{backendRef: {{name: {source}}}}}\n  target: {{backendRef: {{name: {target}}}}}\n{more}"
    )
