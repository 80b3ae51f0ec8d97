"""What service accounts may do, by their Roles, beside what they did, by the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from testbed.kubernetes.cluster import Cluster

__all__ = ["Account", "Right", "everywhere", "table"]

everywhere: Final = ""
"""The place of a right that holds in every namespace."""

_Event = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource, in a place.

    Attributes:
        place: Namespace, or `everywhere`.
        group: API group, empty for the core.
        resource: Plural, with its part after a slash.
        verb: Of RBAC.
    """

    place: str
    group: str
    resource: str
    verb: str

    @property
    def what(self) -> tuple[str, str, str]:
        """Without the place."""
        return self.group, self.resource, self.verb


@dataclass
class Account:
    """A service account; what it may do is read when this is made, what it did by `read_log`.

    Args:
        cluster: Where it is.
        namespace: Its namespace.
        name: Its name.

    Attributes:
        granted: Every right that a Role gives to it by name.
        used: The rights that it used.
        refused: What it was not allowed to do, and with which object.
    """

    cluster: Cluster
    namespace: str
    name: str
    granted: set[Right] = field(init=False)
    used: set[Right] = field(init=False)
    refused: set[tuple[Right, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.granted, self.used, self.refused = set(self._granted()), set(), set()

    def read_log(self) -> None:
        """Reads the audit log."""
        for event in self._events():
            right = self._right(event)
            if event["responseStatus"]["code"] == 403:
                self.refused.add((right, event["objectRef"].get("name", "")))
                continue
            self.used.add(right)
            if right.verb == "patch" and event["responseStatus"]["code"] == 201:
                # An apply that makes the object is checked as `create` too, and logged as one request.
                self.used.add(self._at(event, "create"))

    def unused(self, given: Iterable[Account] = ()) -> set[Right]:
        """Rights that were not used: neither by itself nor, after it gave them, by one of these."""
        passed_on = {right.what for one in given for right in one.used}
        return {right for right in self.granted - self.used if right.what not in passed_on}

    def _granted(self) -> Iterator[Right]:
        for binding in self._bindings():
            reference, place = binding["roleRef"], binding["metadata"].get("namespace", everywhere)
            in_namespace = place if reference["kind"] == "Role" else None
            role = self.cluster.client.get(reference["kind"], reference["name"], namespace=in_namespace)
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        yield from (Right(place, group, resource, verb) for verb in rule["verbs"])

    def _bindings(self) -> Iterator[Mapping[str, Any]]:
        client = self.cluster.client
        for one in [*client.objects("ClusterRoleBinding"), *client.objects("RoleBinding", all_namespaces=True)]:
            for subject in one.get("subjects") or []:
                namespace = subject.get("namespace") or one["metadata"].get("namespace")
                if (subject["kind"], namespace, subject["name"]) == ("ServiceAccount", self.namespace, self.name):
                    yield one

    def _events(self) -> Iterator[_Event]:
        user = f"system:serviceaccount:{self.namespace}:{self.name}"
        for event in self.cluster.audit_events():
            if event["user"].get("username") == user and "objectRef" in event and "responseStatus" in event:
                yield event

    def _right(self, event: _Event) -> Right:
        return self._at(event, event["verb"])

    def _at(self, event: _Event, verb: str) -> Right:
        """The right that an event needs; that of the narrower place where there are two."""
        about = event["objectRef"]
        part = f"/{about['subresource']}" if about.get("subresource") else ""
        what = about.get("apiGroup", ""), about["resource"] + part, verb
        narrow = Right(about.get("namespace", everywhere), *what)
        return narrow if narrow in self.granted else Right(everywhere, *what)


def table(accounts: Mapping[str, Account], places: Mapping[str, str]) -> str:
    """What each account may do, in Markdown.

    Args:
        accounts: By what they are called.
        places: What places are called.
    """
    lines = ["| account | where | resource | verbs | only to give them to workers |", "|---|---|---|---|---|"]
    for called, account in accounts.items():
        for (place, group, resource), rights in groupby(
            sorted(account.granted), lambda right: (right.place, right.group, right.resource)
        ):
            verbs, given = list[str](), list[str]()
            for right in rights:
                (verbs if right in account.used else given).append(right.verb)
            name = f"{group}/{resource}" if group else resource
            cells = (called, places[place], f"`{name}`", ", ".join(verbs), ", ".join(given))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
