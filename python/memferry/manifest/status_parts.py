"""What every status is made of: bounded texts and numbers, conditions, and the base of all of them.

Lenient where the spec is strict: a field of a newer writer is left out rather than refused, so that an older reader
goes on.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "STATUS_VERSION",
    "Changes",
    "Condition",
    "Count",
    "Digest",
    "Instant",
    "Message",
    "Mode",
    "ObjectName",
    "SecretKey",
    "Secs",
    "Small",
    "Status",
    "StatusPart",
    "Uid",
    "Word",
    "keyed",
]

STATUS_VERSION: Final = 1
"""Of everything here; a status of a newer version is left alone."""

MAX_MESSAGE: Final = 1024


def _cut(value: Any) -> Any:
    """A message that fits."""
    if isinstance(value, str) and len(value) > MAX_MESSAGE:
        return f"{value[: MAX_MESSAGE - 3]}..."
    return value


Message = Annotated[str, BeforeValidator(_cut), Field(max_length=MAX_MESSAGE)]
Word = Annotated[str, Field(max_length=64)]
ObjectName = Annotated[str, Field(max_length=253)]
Digest = Annotated[str, Field(max_length=128)]
Uid = Annotated[str, Field(max_length=64)]
Instant = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
Small = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
Secs = Annotated[float, Field(ge=0, le=1e9)]
Mode = Literal["Serving", "Frozen"]
"""Whether clients may write."""
Changes = Literal["log", "watermark", "scan"]
"""How a store tells what changed."""


def keyed(*keys: str) -> dict[str, Any]:
    """A list whose items are told apart by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class StatusPart(BaseModel):
    """A part of a status."""

    model_config = ConfigDict(
        defer_build=True,  # As of a `Part`.
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    def to_json(self) -> dict[str, Any]:
        """As it stands in the cluster: names in camelCase, nothing for what is not known."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(StatusPart):
    """A condition as all of Kubernetes has them."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What is said something about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=256)]
    """Why, in one word."""
    message: Message = ""
    """Why, for people."""
    observed_generation: Count | None = None
    """Generation of the spec it was said of."""
    last_transition_time: Instant
    """When `status` last changed."""


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=keyed("type"))]


class SecretKey(StatusPart):
    """A key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: ObjectName
    """The key in it."""


class Status(StatusPart):
    """What all of them say."""

    observed_generation: Count = 0
    """Generation of the spec that was last acted upon."""
    status_version: Small = STATUS_VERSION
    """Version of what stands here; a newer one is left alone by an older operator."""
    conditions: Conditions = ()
    """Conditions; `Ready`, `Reconciling` and `Stalled` as kstatus has them."""
