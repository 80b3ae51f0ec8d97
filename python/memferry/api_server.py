"""One request to the API server, over the connection of the official client.

Its classes for each API group bring all their models with them: half a second of the start of every pod.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.rest import RESTResponse

__all__ = ["failures", "send"]


def send(
    api: ApiClient,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: dict[str, Any] | None = None,
    content_type: str = "application/json",
    timeout_secs: float | tuple[float, float],
) -> RESTResponse:
    """Sends a request; an answer of any status is an answer, and nothing of it is read yet.

    Args:
        api: The official client.
        method: HTTP method.
        path: Of the object or the collection.
        query: Parameters.
        body: An object.
        content_type: Of the body.
        timeout_secs: For everything, or to connect and to read.

    Raises:
        One of `failures()`: There was no answer.
    """
    headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": content_type})
    request = api.param_serialize(
        method,
        path,
        query_params=list((query or {}).items()),
        header_params=headers,
        body=body,
        auth_settings=["BearerToken"],
    )
    return api.call_api(*request, _request_timeout=timeout_secs)


def failures() -> tuple[type[Exception], ...]:
    """What is raised where there is no answer, or one that nobody can read."""
    from kubernetes.client.exceptions import OpenApiException  # noqa: PLC0415 - an optional package, large
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with it

    return OpenApiException, HTTPError, OSError, ValueError
