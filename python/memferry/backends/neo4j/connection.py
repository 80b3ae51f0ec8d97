"""A server and one of its databases: driver, sessions, and what its errors mean."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from memferry.backends.neo4j.values import UnknownValueError
from memferry.errors import MemferryError, RefusedError, StoreError, TransientError
from memferry.urls import StoreUrl

if TYPE_CHECKING:
    import neo4j

__all__ = ["Connection", "guard", "unprinted"]

OLDEST: Final = (5, 26)
"""Dynamic labels and `CALL (...) {}` came with it."""

_CONNECT_SECS: Final = 10.0
_TRANSACTION_SECS: Final = 600.0
"""After this the server ends a transaction by itself, so that one of a lost client holds no lock for ever."""

_PASSING: Final = frozenset(
    {
        "Neo.ClientError.Transaction.TransactionTimedOut",
        "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration",
        "Neo.ClientError.Cluster.NotALeader",
    },
)


@contextmanager
def guard() -> Iterator[None]:
    """Turns what the driver raises into our errors.

    A commit without an answer is transient too: the page is read, compared and written again, which changes nothing
    where the commit had come through.
    """
    from neo4j import exceptions as e  # noqa: PLC0415 - an optional package

    try:
        yield
    except UnknownValueError as error:
        raise StoreError("store-format", f"a property has a type this driver cannot read: {error}") from error
    except e.Neo4jError as error:
        raise _of_server(error) from error
    except e.DriverError as error:
        if isinstance(error, e.ServiceUnavailable | e.SessionExpired | e.ConnectionPoolError) or error.is_retryable():
            raise TransientError("unavailable", f"Neo4j: {error}") from error
        if isinstance(error, e.ConfigurationError):
            raise RefusedError("invalid", f"Neo4j: {error}") from error
        raise StoreError("refused", f"Neo4j: {error}") from error
    except OSError as error:
        raise TransientError("unavailable", f"Neo4j: {error}") from error


def _of_server(error: neo4j.exceptions.Neo4jError) -> MemferryError:
    code, text = error.code or "", f"Neo4j: {error.message} ({error.code})"
    if code == "Neo.ClientError.Security.AuthenticationRateLimit":
        # Wrong passwords of whoever else lock a user out for seconds: that says nothing of ours.
        return TransientError("throttled", text)
    if code.startswith("Neo.ClientError.Security."):
        return RefusedError(
            "unauthorized",
            text,
            hint="the user stands in the URL (`neo4j` where none does), the password in MEMFERRY_SOURCE_PASSWORD for "
            "what is read, MEMFERRY_TARGET_PASSWORD for what is written, or in the variable that --source-password-env "
            "or --target-password-env names",
        )
    if code == "Neo.ClientError.Database.DatabaseNotFound":
        return RefusedError("store-missing", text)
    if error.is_retryable() or code.startswith("Neo.TransientError.") or code in _PASSING:
        return TransientError("unavailable", text)
    return StoreError("refused", text)


def _check_certificate(url: StoreUrl) -> None:
    """Says what the driver does not: that it found a server and did not trust it.

    Raises:
        RefusedError: `unauthorized`.
    """
    try:
        context = ssl.create_default_context(cafile=url.secrets.ca_file)
        with (
            socket.create_connection((url.host, url.port), timeout=_CONNECT_SECS) as line,
            context.wrap_socket(line, server_hostname=url.host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        raise RefusedError(
            "unauthorized",
            f"the certificate of {url.host}:{url.port} is not trusted: {error.verify_message}",
            hint="MEMFERRY_SOURCE_CA_FILE and MEMFERRY_TARGET_CA_FILE name the file of the authority that signed it",
        ) from None
    except OSError:
        return  # Then it is what the driver said.


class _Unprinted(list[Any]):
    """A list that the driver does not print.

    For a line of its log it prints the parameters of every statement, whether anybody reads that line or not
    (`Bolt5x5.run` of neo4j 6.4), which takes three times as long as sending them; and no log is a place for records.
    """

    def __repr__(self) -> str:
        return f"<{len(self)} items>"


def unprinted(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a statement, whose lists are not printed."""
    return {name: _Unprinted(value) if isinstance(value, list) else value for name, value in parameters.items()}


class Connection:
    """A driver bound to one database.

    Args:
        url: Server, database, user (`neo4j` where there is none) and secrets; without a password it goes without.

    Attributes:
        identity: Names the database, whatever address it is reached by.
    """

    def __init__(self, url: StoreUrl) -> None:
        try:
            from neo4j import GraphDatabase, TrustCustomCAs  # noqa: PLC0415 - an optional package
        except ModuleNotFoundError as error:
            raise RefusedError(
                "extra-missing",
                "reading and writing Neo4j needs its driver",
                hint="pip install memferry[neo4j]",
            ) from error
        # Its warnings say less than the errors raised here; an application that wants them sets up its logging.
        logging.getLogger("neo4j").addHandler(logging.NullHandler())
        host = f"[{url.host}]" if ":" in url.host else url.host
        ca_file, password = url.secrets.ca_file, url.secrets.password
        # The scheme says how certificates are checked, or the options do; the driver does not take both.
        options: dict[str, Any] = {}
        if url.tls and ca_file is not None:
            options = {"encrypted": True, "trusted_certificates": TrustCustomCAs(str(ca_file))}
        self._driver: neo4j.Driver = GraphDatabase.driver(
            f"neo4j{'+s' if url.tls and not options else ''}://{host}:{url.port}",
            auth=None if password is None else (url.user or "neo4j", password),
            **options,
            connection_timeout=_CONNECT_SECS,
            max_transaction_retry_time=0.0,
            notifications_min_severity="OFF",
            user_agent="memferry",
        )
        self._bookmarks = GraphDatabase.bookmark_manager()
        self._database: str | None = url.name or None
        with ExitStack() as unless_reached:
            unless_reached.callback(self._driver.close)
            try:
                self._check_version()
                [(database, name)] = self.read("CALL db.info() YIELD id, name RETURN id, name")
            except TransientError as error:
                if url.tls:
                    _check_certificate(url)
                raise TransientError(error.code, f"{host}:{url.port}: {error}") from error
            unless_reached.pop_all()
        self._database = name
        self.identity = url.identity or f"neo4j:{name}:{database.lower()}"

    def _check_version(self) -> None:
        [(version,)] = self.read(
            "CALL dbms.components() YIELD name, versions WHERE name = 'Neo4j Kernel' RETURN versions[0]",
        )
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < OLDEST:
            raise RefusedError("store-format", f"Neo4j {version}, needed: {'.'.join(map(str, OLDEST))} or newer")

    def session(self, *, read_only: bool, fetch_size: int = 1000) -> neo4j.Session:
        """A session; a read-only one is refused any write by the server."""
        return self._driver.session(
            database=self._database,
            default_access_mode="READ" if read_only else "WRITE",
            bookmark_manager=self._bookmarks,
            fetch_size=fetch_size,
        )

    def begin(self, session: neo4j.Session) -> neo4j.Transaction:
        """Begins a transaction."""
        return session.begin_transaction(timeout=_TRANSACTION_SECS)

    def read(self, text: str, **parameters: Any) -> list[list[Any]]:
        """Runs one reading statement; its rows."""
        with guard(), self.session(read_only=True) as session:
            return session.run(text, unprinted(parameters)).values()

    def write(self, text: str, **parameters: Any) -> list[list[Any]]:
        """Runs one writing statement in a transaction of its own; its rows."""
        with guard(), self.session(read_only=False) as session:
            return session.run(text, unprinted(parameters)).values()

    def close(self) -> None:
        """Ends all connections."""
        self._driver.close()
