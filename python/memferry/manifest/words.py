"""Texts of the resources with their bounds, and what is allowed in them in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

MAX_TEXT: Final = 4096
MAX_PATH: Final = 1024
MAX_FILE: Final = 256 << 10

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KEY: Final = r"^[-._a-zA-Z0-9]+$"
SLUG: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
VISIBLE: Final = r"^[^\x00-\x1f\x7f?#]*$"
PATH: Final = r"^[^\x00-\x1f\x7f?]+$"
_PORT: Final = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
ADDRESS: Final = rf"^([a-zA-Z0-9]([-a-zA-Z0-9._]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:{_PORT})?$"
DATABASE: Final = r"^[a-zA-Z0-9][-.a-zA-Z0-9]*$"
INSTANT: Final = (
    r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
DURATION: Final = r"^([0-9]{1,6}(ms|s|m|h))+$"
ENV: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
SHARE: Final = r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"
TOKEN: Final = r"^[-._:a-zA-Z0-9]*$"  # noqa: S105 - what a token may look like
LABEL_KEY: Final = r"^([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$"
TAINT_KEY: Final = LABEL_KEY.replace("^", "^(").replace("$", ")?$")
LABEL_VALUE: Final = r"^([a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?)?$"

ALLOWED: Final[dict[str, str]] = {
    NAME: "lower case letters, digits and `-`, a letter or digit at both ends",
    OBJECT_NAME: "lower case letters, digits, `-` and `.`, a letter or digit at both ends",
    PATH: "a path without `?` and control characters",
    KEY: "letters, digits, `-`, `_` and `.`",
    SLUG: "lower case words joined by `-`",
    VISIBLE: "printable characters without `?` and `#`",
    ADDRESS: "`host` or `host:port`, without user or scheme",
    DATABASE: "letters, digits, `-` and `.`",
    INSTANT: "an instant as in 2026-01-31T22:00:00Z",
    DURATION: "a duration as in `90s`, `5m` or `1h30m`",
    ENV: "the name of an environment variable",
    QUANTITY: "a quantity as in `500m` or `2Gi`",
    SHARE: 'a share in quotes, `"0"` to `"1"`, as in `"0.99"`',
    TOKEN: "letters, digits, `-`, `_`, `.` and `:`",
    LABEL_KEY: "a label key of Kubernetes",
    TAINT_KEY: "a label key of Kubernetes, or empty",
    LABEL_VALUE: "a label value of Kubernetes",
}
"""Patterns in words, for messages and documentation."""

Duration = Annotated[str, Field(pattern=DURATION, max_length=32)]
Name = Annotated[str, Field(pattern=NAME, max_length=63)]
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME, max_length=253)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
EnvName = Annotated[str, Field(pattern=ENV, max_length=128)]
GapName = Annotated[str, Field(pattern=SLUG, max_length=64)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
Share = Annotated[str, Field(pattern=SHARE, max_length=8)]
Token = Annotated[str, Field(pattern=TOKEN, max_length=128)]
FilePath = Annotated[str, Field(pattern=PATH, max_length=MAX_PATH)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY, max_length=317)]
TaintKey = Annotated[str, Field(pattern=TAINT_KEY, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]


def _is_instant(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"got `{text}`, which is no day or time of day, allowed: {ALLOWED[INSTANT]}") from None
    return text


Instant = Annotated[
    str,
    Field(pattern=INSTANT, max_length=40, json_schema_extra={"format": "date-time"}),
    AfterValidator(_is_instant),
]


def duration_secs(text: str) -> float:
    """Seconds of a duration as in `1h30m`."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)(ms|s|m|h)", text))


@dataclass(frozen=True)
class Between:
    """Bounds of a duration.

    Attributes:
        least: The shortest.
        most: The longest.
    """

    least: str
    most: str

    @property
    def _message(self) -> str:
        return f"allowed: {self.least} to {self.most}"

    def _checked(self, text: str) -> str:
        if not duration_secs(self.least) <= duration_secs(text) <= duration_secs(self.most):
            raise ValueError(f"got `{text}`, {self._message}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Checks a value after everything else."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Adds the bounds, as the API server reads them."""
        cel = f"duration(self) >= duration('{self.least}') && duration(self) <= duration('{self.most}')"
        return {**handler(schema), "x-kubernetes-validations": [{"rule": cel, "message": self._message}]}
