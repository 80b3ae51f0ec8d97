"""Options that several verbs share, as dataclasses: a verb takes the dataclass, its fields are the options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

__all__ = ["grouped"]


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Shows typer the fields of every dataclass in the signature of `verb` as parameters of their own.

    Args:
        verb: Its parameters are dataclasses, or what typer understands by itself.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, type[Any]] = {}
    shown: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        if not (isinstance(hints[name], type) and dataclasses.is_dataclass(hints[name])):
            shown[name] = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        groups[name] = hints[name]
        types = get_type_hints(hints[name], include_extras=True)
        for field in dataclasses.fields(hints[name]):
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            shown[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name]
            )

    def command(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        verb(**made, **given)

    command.__name__, command.__doc__, command.__module__ = verb.__name__, verb.__doc__, verb.__module__
    command.__annotations__ = {name: parameter.annotation for name, parameter in shown.items()}
    command.__signature__ = inspect.Signature(list(shown.values()))  # type: ignore[attr-defined]
    return command
