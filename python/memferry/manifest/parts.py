"""What all resources are made of.

Strict: unknown fields are refused, nothing is converted, every text, list and map is bounded. A field that is null is
one that is not there, as in a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel

from memferry.manifest import words
from memferry.manifest.words import LabelKey, LabelValue, Name, ObjectName, Text

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["FieldError", "KeyReference", "Labels", "Metadata", "Part", "Reference", "Rule", "immutable", "once"]

_KEYS: Final = {
    "x-kubernetes-validations": [
        {
            "rule": f"self.all(key, key.size() <= 317 && key.matches(r'{words.LABEL_KEY}'))",
            "message": f"a key is {words.ALLOWED[words.LABEL_KEY]}",
        }
    ]
}
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64, json_schema_extra=_KEYS)]


@dataclass(frozen=True)
class Rule:
    """What fields must fulfil together: said once, for the API server and for a file.

    Attributes:
        cel: The rule as the API server checks it.
        message: What is said when it does not hold.
        path: The field to name, below the object that has the rule; empty for the object.
        holds: The same rule on the model; nothing for a rule about a change, which a file cannot break.
    """

    cel: str
    message: str
    path: str = ""
    holds: Callable[[Any], bool] | None = None

    def to_json(self) -> dict[str, str]:
        """The rule as it stands in a schema."""
        found = {"rule": self.cel, "message": self.message}
        if self.path:
            found["fieldPath"] = f".{self.path}"
        return found


class FieldError(ValueError):
    """A rule that does not hold.

    Attributes:
        path: The field to name, below the object that has the rule.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.message)
        self.path = tuple(rule.path.split(".")) if rule.path else ()


def immutable(field: str, why: str, *, optional: bool = False, unless: str = "") -> Rule:
    """A rule that a field keeps the value it was made with.

    Args:
        field: Name of the field in the manifest.
        why: What to do instead.
        optional: Whether it may be missing; then it also stays missing.
        unless: CEL that lets it change.
    """
    cel = f"self.{field} == oldSelf.{field}"
    if optional:
        cel = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {cel})"
    return Rule(f"{unless} || ({cel})" if unless else cel, f"cannot be changed: {why}", field)


class Part(BaseModel):
    """An object in a manifest."""

    model_config = ConfigDict(
        defer_build=True,  # Most commands read no manifest, and building costs more than all other imports.
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        str_max_length=words.MAX_TEXT,
        use_attribute_docstrings=True,
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()
    """What its fields must fulfil together."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: one for name, one in value.items() if one is not None}
        return value

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.RULES:
            if rule.holds is not None and not rule.holds(self):
                raise FieldError(rule)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Adds the rules, as the API server reads them."""
        found = handler(schema)
        if cls.RULES:
            handler.resolve_ref_schema(found)["x-kubernetes-validations"] = [rule.to_json() for rule in cls.RULES]
        return found


class Metadata(Part):
    """What the cluster knows a resource by."""

    name: Name
    """Name of the resource."""
    namespace: Name = ""
    """Namespace; references reach no other."""
    labels: Labels = Field(default_factory=dict)
    """For people and tools."""
    annotations: Annotated[dict[LabelKey, Text], Field(max_length=64)] = Field(default_factory=dict)
    """For people and tools."""


class Reference(Part):
    """A resource of the same namespace."""

    name: Name
    """Its name."""


class KeyReference(Part):
    """A key of a Secret or a ConfigMap of the same namespace."""

    name: ObjectName
    """Its name."""
    key: Annotated[str, Field(pattern=words.KEY, max_length=253)]
    """The key in it."""


def once(values: list[Any]) -> list[Any]:
    """Refuses a value that stands twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"`{value}` stands twice")
    return values
