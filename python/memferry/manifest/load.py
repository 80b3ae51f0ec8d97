"""Reading manifest files: bounded YAML with the places of its values, and errors that name file, line and field."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from memferry.errors import ManifestError, Problem, RefusedError
from memferry.manifest.model import KINDS, ConfigMap, MemoryBackend, MemoryMigration, Resource
from memferry.manifest.parts import FieldError
from memferry.manifest.words import ALLOWED

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Manifest", "load_manifest", "read_manifest"]

MAX_BYTES: Final = 1 << 20
MAX_DOCUMENTS: Final = 100
MAX_DEPTH: Final = 32
_PLAIN: Final = {
    "string_type": "a text, in quotes where it looks like a number",
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
}
_SCALARS: Final = ("null", "bool", "int", "float")
_TAGS: Final = (*_SCALARS, "str", "timestamp", "value", "seq", "map")

Path_ = tuple[str | int, ...]
T = TypeVar("T", bound=Resource)


@dataclass(frozen=True)
class Document:
    """One resource and where its fields stand."""

    resource: Resource
    lines: dict[Path_, int]

    @property
    def key(self) -> tuple[str, str, str]:
        """Kind, namespace and name."""
        return self.resource.kind, self.resource.metadata.namespace, self.resource.metadata.name


@dataclass(frozen=True)
class Manifest:
    """A file of resources.

    Attributes:
        file: What it is called in messages.
        folder: What paths in it are relative to.
    """

    file: str
    folder: Path
    documents: list[Document] = field(default_factory=list)

    def migrations(self) -> list[MemoryMigration]:
        """The migrations, in the order of the file."""
        return [d.resource for d in self.documents if isinstance(d.resource, MemoryMigration)]

    def backend(self, migration: MemoryMigration, end: str, name: str) -> MemoryBackend:
        """A backend that a migration names.

        Args:
            migration: Who names it.
            end: Path of the reference, for the message.
            name: Its name.

        Raises:
            ManifestError: There is none of that name in the file.
        """
        found = self._of(migration, MemoryBackend)
        if name not in found:
            allowed = f"allowed: {', '.join(sorted(found))}" if found else "and the file has no MemoryBackend"
            raise self.error(migration, end, f"got `{name}`, {allowed}")
        return found[name]

    def config_map(self, migration: MemoryMigration, end: str, name: str, key: str) -> str:
        """A text of a ConfigMap that a migration names.

        Raises:
            ManifestError: There is none of that name and key in the file.
        """
        found = self._of(migration, ConfigMap)
        if name not in found or key not in found[name].data:
            known = sorted(f"{n}/{k}" for n, one in found.items() for k in one.data)
            raise self.error(migration, end, f"got `{name}/{key}`, in this file: {', '.join(known) or 'none'}")
        return found[name].data[key]

    def _of(self, migration: MemoryMigration, kind: type[T]) -> dict[str, T]:
        namespace = migration.metadata.namespace
        resources = [d.resource for d in self.documents if d.resource.metadata.namespace == namespace]
        return {r.metadata.name: r for r in resources if isinstance(r, kind)}

    def error(self, resource: Resource, path: str, text: str) -> ManifestError:
        """An error at a field of a resource."""
        lines = next((d.lines for d in self.documents if d.resource is resource), {})
        shown = f"{resource.kind}/{resource.metadata.name}"
        return ManifestError(self.file, [Problem(shown, path, _line(lines, tuple(path.split("."))), text)])


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest file.

    Raises:
        ManifestError: It is not what it should be; every problem is named.
        RefusedError: `manifest`, it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RefusedError("manifest", f"{path}: {error.strerror}") from error
    return load_manifest(data, str(path), path.resolve().parent)


def load_manifest(data: bytes, file: str, folder: Path) -> Manifest:
    """Reads a manifest.

    Args:
        data: YAML or JSON, several documents with `---` between them.
        file: What to call it in messages.
        folder: What paths in it are relative to.

    Raises:
        ManifestError: It is not what it should be; every problem is named.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(file, [Problem("", "", None, f"larger than {MAX_BYTES >> 20} MiB")])
    documents: list[Document] = []
    problems: list[Problem] = []
    seen: set[tuple[str, str, str]] = set()
    for node in _compose(data, file):
        lines: dict[Path_, int] = {}
        value = _value(node, (), lines, file)
        try:
            document = Document(_resource(value, lines, file), lines)
        except ManifestError as error:
            problems += error.problems
            continue
        if document.key in seen:
            problems.append(Problem("/".join(document.key[::2]), "", lines[()], "stands twice in the file"))
        seen.add(document.key)
        documents.append(document)
    if not documents and not problems:
        problems.append(Problem("", "", None, "no resource in it"))
    if problems:
        raise ManifestError(file, problems)
    return Manifest(file, folder, documents)


class _Loader(yaml.SafeLoader):
    """Nodes only, no aliases: what is read is not larger than what stands there."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        alias = self.check_event(yaml.AliasEvent)
        if alias or self.depth > MAX_DEPTH:
            text = "aliases are not read; write it out" if alias else f"nested deeper than {MAX_DEPTH}"
            raise yaml.composer.ComposerError(None, None, text, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(data: bytes, file: str) -> Iterator[yaml.Node]:
    try:
        nodes = []
        for node in yaml.compose_all(data.decode("utf-8"), Loader=_Loader):
            if node.tag.endswith(":null") and not node.value:
                continue  # Nothing between two `---`.
            nodes.append(node)
            if len(nodes) > MAX_DOCUMENTS:
                raise ManifestError(file, [Problem("", "", None, f"more than {MAX_DOCUMENTS} resources")])
    except UnicodeDecodeError as error:
        raise ManifestError(file, [Problem("", "", None, f"not UTF-8 at byte {error.start}")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ManifestError(file, [Problem("", "", line, error.problem or "not YAML")]) from None
    except yaml.YAMLError as error:
        text = str(error).splitlines()[0]
        raise ManifestError(file, [Problem("", "", None, f"not YAML: {text}")]) from None
    yield from nodes


def _value(node: yaml.Node, path: Path_, lines: dict[Path_, int], file: str) -> Any:
    """What the node says, as JSON knows it; times stay texts."""
    lines[path] = node.start_mark.line + 1

    def refuse(text: str, at: yaml.Node) -> ManifestError:
        return ManifestError(file, [Problem("", _shown(path), at.start_mark.line + 1, text)])

    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if tag not in _TAGS:
        raise refuse(f"type `{node.tag[:80]}` is not read", node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, i), lines, file) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        value: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith(":str"):
                raise refuse("a key that is no text", key)
            if key.value in value:
                raise refuse(f"`{key.value[:80]}` stands twice", key)
            value[key.value] = _value(child, (*path, key.value), lines, file)
            lines[*path, key.value] = key.start_mark.line + 1
        return value
    if tag in _SCALARS:
        constructor = yaml.constructor.SafeConstructor()
        try:
            return constructor.construct_object(node)
        except (ValueError, yaml.YAMLError):
            raise refuse(f"not a value of type {tag}", node) from None
    return node.value


def _resource(value: Any, lines: dict[Path_, int], file: str) -> Resource:
    if not isinstance(value, dict):
        raise ManifestError(file, [Problem("", "", lines[()], "a resource is an object with apiVersion and kind")])
    kind = value.get("kind")
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        text = f"got {_got(kind)}, allowed: {', '.join(KINDS)}"
        raise ManifestError(file, [Problem("", "kind", _line(lines, ("kind",)), text)])
    shown = f"{kind}/{name}" if isinstance(name, str) and len(name) <= 63 else str(kind)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [
            Problem(shown, _shown(loc), _line(lines, loc), _text(model, detail, value))
            for detail in error.errors(include_url=False, include_context=True, include_input=False)
            for loc in [_place(detail)]
        ]
        raise ManifestError(file, sorted(problems, key=lambda p: p.line or 0)) from None


def _place(detail: ErrorDetails) -> Path_:
    """The field that an error is about."""
    error = detail.get("ctx", {}).get("error")
    below = error.path if isinstance(error, FieldError) else ()
    return (*(part for part in detail["loc"] if part != "[key]"), *below)


def _line(lines: dict[Path_, int], path: Path_) -> int | None:
    """The line of a field, or of the nearest thing around it that stands in the file."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _shown(path: Path_) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _text(model: type[BaseModel], detail: ErrorDetails, value: Any) -> str:
    loc, context = detail["loc"], detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        known = _fields(model, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, 1)
        return f"unknown field{f', meant: {near[0]}' if near else ''}; allowed: {', '.join(known)}"
    if detail["type"] == "missing":
        return "is needed"
    allowed = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    allowed = allowed.replace("less than or equal to", "at most").replace("greater than or equal to", "at least")
    if detail["type"] == "value_error":
        return allowed
    if detail["type"] == "string_pattern_mismatch":
        allowed = ALLOWED[context["pattern"]]
    elif detail["type"] == "literal_error":
        allowed = context["expected"].replace("'", "`")
    elif "max_length" in context:
        allowed = f"at most {context['max_length']} long"
    else:
        allowed = _PLAIN.get(detail["type"], allowed)
    for part in loc:
        there = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if there:
            value = value[part]
    secret = {"apiKey", "password", "secretRef"} & set(map(str, loc))
    return f"{'' if secret else f'got {_got(value)}, '}allowed: {allowed}"


def _got(value: Any) -> str:
    """A value for a message: short, and without what may be a password in an address."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = re.sub(r"[^/\s\"]*@", "***@", json.dumps(value, ensure_ascii=False, default=str))
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _fields(model: type[BaseModel], path: Path_) -> list[str]:
    """Names of the fields of what lies at `path`."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None:
            return []
        annotation = next((f.annotation for f in current.model_fields.values() if f.alias == part), None)
        current = _model_in(annotation) if isinstance(part, str) else current
    return [field.alias or name for name, field in current.model_fields.items()] if current else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one))), None)
