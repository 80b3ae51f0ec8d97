"""Texts of the resources with their bounds, and what is allowed in them in words."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

MAX_TEXT: Final = 4096
MAX_PATH: Final = 1024
MAX_FILE: Final = 256 << 10

NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
KEY: Final = r"^[-._a-zA-Z0-9]+$"
SLUG: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
VISIBLE: Final = r"^[^\x00-\x1f\x7f?#]*$"
ADDRESS: Final = r"^([a-zA-Z0-9]([-a-zA-Z0-9._]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[1-9][0-9]{0,4})?$"
DATABASE: Final = r"^[a-zA-Z0-9][-.a-zA-Z0-9]*$"
INSTANT: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"
DURATION: Final = r"^([0-9]{1,6}(ms|s|m|h))+$"
ENV: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
SHARE: Final = r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"
TOKEN: Final = r"^[-._:a-zA-Z0-9]*$"  # noqa: S105 - what a token may look like
LABEL_KEY: Final = r"^(([a-zA-Z0-9][-._a-zA-Z0-9]*/)?[a-zA-Z0-9][-._a-zA-Z0-9]*)?$"
LABEL_VALUE: Final = r"^([a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?)?$"

ALLOWED: Final[dict[str, str]] = {
    NAME: "lower case letters, digits and `-`, a letter or digit at both ends",
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
    LABEL_VALUE: "a label value of Kubernetes",
}
"""Patterns in words, for messages and documentation."""

Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Duration = Annotated[str, Field(pattern=DURATION, max_length=32)]
EnvName = Annotated[str, Field(pattern=ENV, max_length=128)]
GapName = Annotated[str, Field(pattern=SLUG, max_length=64)]
Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
Share = Annotated[str, Field(pattern=SHARE, max_length=8)]
Token = Annotated[str, Field(pattern=TOKEN, max_length=128)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE, max_length=63)]


def is_path(text: str) -> str:
    """A path that a store URL can carry."""
    if re.search(r"[\x00-\x1f\x7f?]", text):
        raise ValueError("control characters and `?` are not allowed")
    return text
