"""Profile tables, as data: one JSON file a profile and shape."""

from __future__ import annotations

import json
from importlib.resources import files

from memferry._native import Mapper
from memferry.errors import RefusedError

__all__ = ["load_mapper", "profile_names"]


def profile_names(shape: str) -> list[str]:
    """Profiles there are for `shape` (`document`, `point`, `node`).

    >>> "native" in profile_names("document")
    True
    """
    ending = f"-{shape}.json"
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))


def load_mapper(profile: str, shape: str, *, gathering: bool = False, filling: bool = True) -> Mapper:
    """Loads a profile's mapper for a shape.

    Args:
        profile: Name of the profile.
        shape: What the store's rows are.
        gathering: Leave lists within their record, for a target whose observations live inside their entity.
        filling: Write what the system expects beside its data; not to put a record back as it was.

    Raises:
        RefusedError: `profile`, when there is none.
    """
    known = profile_names(shape)
    if profile not in known:
        raise RefusedError("profile", f"no profile `{profile}` for {shape} stores, allowed: {', '.join(known)}")
    text = files(__name__).joinpath(f"{profile}-{shape}.json").read_text("utf-8")
    table = json.loads(text)
    # Documents are plain JSON unless the profile is ours; every other shape hands over canonical text.
    escaped = shape != "document" or bool(table.get("escaped"))
    if not filling:
        table["kinds"] = [{key: value for key, value in kind.items() if key != "fill"} for kind in table["kinds"]]
    return Mapper(json.dumps(table), escaped, gathering=gathering)
