"""Neo4j Community 5.26 from Maven Central, on loopback, one home folder and one password per instance."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import neo4j
from neo4j.exceptions import DriverError, Neo4jError

from testbed import cache
from testbed.errors import TestbedError
from testbed.ports import release_port, reserve_port
from testbed.process import ManagedProcess, run_tool

__all__ = ["VERSION", "Neo4jServer", "installed"]

VERSION = "5.26.12"

_POM = Path(__file__).parent / "data" / "neo4j-pom.xml"
_OLDEST_JAVA = 17
_START_DEADLINE_SECS = 180.0
_PORT_TRIES = 3
_PORT_TAKEN = ("Address already in use", "BindException")

_CONFIGURATION = """\
server.default_listen_address=127.0.0.1
server.bolt.listen_address=127.0.0.1:{port}
server.http.enabled=false
dbms.security.auth_enabled=true
dbms.usage_report.enabled=false
server.memory.heap.max_size=1g
server.memory.pagecache.size=256m
db.tx_log.preallocate=false
"""
_JVM_OPTIONS = (
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # A server of a few minutes: what the second compiler costs it never earns back.
    "-XX:ReservedCodeCacheSize=256m",  # The default of the first compiler alone, 48 MB, is swept without end.
    "-XX:+ExitOnOutOfMemoryError",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-modules=jdk.incubator.vector",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dlog4j2.disable.jmx=true",
)


def installed() -> Path:
    """The folder with Neo4j's jars, fetched by Maven on first use (116 MB)."""
    pom = _POM.read_bytes()
    if VERSION.encode() not in pom:
        raise TestbedError(f"{_POM.name} does not ask for Neo4j {VERSION}")
    return cache.cached("neo4j", version=f"{VERSION}-{hashlib.sha256(pom).hexdigest()[:8]}", build=_fetch_jars)


class Neo4jServer:
    """One Neo4j instance, made but not started.

    Args:
        home: Its home folder; a temporary one, removed by `close`, if not given.
        settings: More lines for its configuration.

    Attributes:
        user: The only user.
        password: Random, in no command line of the server.
        home: Where its configuration, data and logs lie.
    """

    def __init__(self, home: Path | None = None, settings: str = "") -> None:
        self._settings = settings
        self._temporary = home is None
        self.home = home or Path(tempfile.mkdtemp(prefix="memferry-neo4j-"))
        self.user = "neo4j"
        self.password = secrets.token_hex(18)  # hexadecimal: a leading dash would be read as an option
        self._jars = installed() / "lib"
        self._port = 0
        self._process: ManagedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Its Bolt port, the same over all restarts."""
        return self._port

    @property
    def url(self) -> str:
        """Where drivers connect, without the password."""
        return f"bolt://127.0.0.1:{self._port}"

    @property
    def process(self) -> ManagedProcess:
        """The Java process: `kill9`, `stop_cont`, `log_path`."""
        if self._process is None:
            raise TestbedError("this Neo4j was never started")
        return self._process

    def start(self) -> None:
        """Start it and wait for the answer to a query; the first start also makes home, password and port."""
        if self._process is not None:
            self._process.start()
            return
        self._prepare_home()
        for attempt in range(1, _PORT_TRIES + 1):
            self._port = reserve_port()
            (self.home / "conf" / "neo4j.conf").write_text(_CONFIGURATION.format(port=self._port) + self._settings)
            process = self._new_process()
            try:
                process.start()
            except TestbedError:
                release_port(self._port)
                if attempt == _PORT_TRIES or not any(text in process.log_since_start() for text in _PORT_TAKEN):
                    raise
            else:
                self._process = process
                return

    def stop(self) -> None:
        """End it in good order; the data stay."""
        if self._process is not None:
            self._process.stop()

    def kill9(self) -> None:
        """End it as a crash would; the data stay."""
        self.process.kill9()

    def restart(self) -> None:
        """Start it again on the same port and data, after an orderly stop if it still runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove its data; the logs of a home that was given stay."""
        if self._process is not None:
            self._process.kill9()
        release_port(self._port)
        shutil.rmtree(self.home if self._temporary else self.home / "data", ignore_errors=True)

    @contextlib.contextmanager
    def driver(self, *, max_transaction_retry_time: float = 30.0) -> Iterator[neo4j.Driver]:
        """A driver, closed at the end of the block.

        Args:
            max_transaction_retry_time: Seconds over which managed transactions are tried again.
        """
        with neo4j.GraphDatabase.driver(
            self.url,
            auth=(self.user, self.password),
            connection_timeout=5.0,
            max_transaction_retry_time=max_transaction_retry_time,
        ) as driver:
            yield driver

    def wipe(self, *, keep: str = "") -> None:
        """Remove every node, relationship, constraint and index but the two built-in token lookups.

        Args:
            keep: Constraints and indexes whose names begin so stay, where it is given. They take longest to make, and
                each that comes or goes makes the server plan every statement anew.
        """
        with self.driver() as driver, driver.session(database="neo4j") as session:
            session.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS").consume()
            for what, text in (
                ("CONSTRAINT", "SHOW CONSTRAINTS YIELD name"),
                ("INDEX", "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'"),
            ):
                for name in [record["name"] for record in session.run(text)]:
                    if not keep or not name.startswith(keep):
                        session.run(_drop(what, name)).consume()

    def _prepare_home(self) -> None:
        for name in ("conf", "data", "logs", "plugins", "import", "tmp"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "conf" / "neo4j.conf").write_text(_CONFIGURATION.format(port=0))
        # A process of two seconds; the server itself reads the hash from its data folder.
        run_tool(
            ["java", *self._class_path(), "org.neo4j.cli.AdminTool", "dbms", "set-initial-password", self.password],
            what="setting the first Neo4j password",
            env=self._environment(),
        )

    def _new_process(self) -> ManagedProcess:
        return ManagedProcess(
            "neo4j",
            [
                "java",
                *_JVM_OPTIONS,
                f"-Djava.io.tmpdir={self.home / 'tmp'}",
                *self._class_path(),
                "org.neo4j.server.CommunityEntryPoint",
                f"--home-dir={self.home}",
                f"--config-dir={self.home / 'conf'}",
                "--console-mode",
            ],
            log_path=self.home / "logs" / "console.log",
            ready=self._answers,
            ready_deadline_secs=_START_DEADLINE_SECS,
            stop_grace_secs=60.0,
            env=self._environment(),
        )

    def _answers(self) -> bool:
        try:
            with self.driver(max_transaction_retry_time=0.0) as driver:
                driver.execute_query("RETURN 1", database_="neo4j")
        except (DriverError, OSError):
            return False
        except Neo4jError as error:
            if error.is_retryable():
                return False
            raise TestbedError(f"Neo4j refused its first query: {error}") from error
        return True

    def _class_path(self) -> tuple[str, str]:
        return "-cp", f"{self._jars}/*"

    def _environment(self) -> dict[str, str | None]:
        return {"NEO4J_HOME": str(self.home), "NEO4J_CONF": str(self.home / "conf"), "NEO4J_AUTH": None}


def _fetch_jars(into: Path) -> None:
    _require_java()
    with tempfile.TemporaryDirectory(prefix="memferry-maven-") as scratch:
        project = Path(scratch)
        shutil.copyfile(_POM, project / "pom.xml")
        run_tool(
            ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib"],
            what="fetching Neo4j from Maven Central",
            cwd=project,
            deadline_secs=900.0,
        )
        shutil.copytree(project / "lib", into / "lib")


def _require_java() -> None:
    # `java -version` writes to stderr, `java --version` to stdout
    first_line = run_tool(["java", "--version"], what="asking Java for its version").partition("\n")[0]
    found = re.search(r" (\d+)[. ]", first_line)
    if found is None or int(found.group(1)) < _OLDEST_JAVA:
        raise TestbedError(f"Neo4j {VERSION} needs Java {_OLDEST_JAVA} or newer, got: {first_line}")


def _drop(kind: str, name: str) -> neo4j.Query:
    quoted = "`" + name.replace("`", "``") + "`"
    return neo4j.Query(f"DROP {kind} {quoted}")  # a name cannot be a parameter
