"""Stubs of the native module; `make lint` checks them against the built one."""

from os import PathLike
from typing import Any, TypeAlias, final

_Path: TypeAlias = str | PathLike[str]
_Quarantined: TypeAlias = tuple[str, str | None, str | None, str, str, bytes]
_Vector: TypeAlias = tuple[str, str | None, int, bool | None, int, bytes | None, bytes]

@final
class Batch:
    """An Arrow record batch, canonical or raw."""

    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""

    def counts(self) -> list[tuple[str, int]]:
        """Records by kind, in copy order."""

    def identities(self) -> list[tuple[str, str]]:
        """Kind and id of each record."""

    def kinds(self) -> bytes:
        """One byte a record: the place of its kind in the copy order."""

    def vector_specs(self) -> list[tuple[str, int, int, int]]:
        """Name, kind (0 dense, 1 sparse, 2 multi), dimension and number of the vectors in a canonical batch."""

    def markers(self) -> list[tuple[str, str] | None]:
        """Marker of each record: migration and hex digest, or None."""

    def digests(self) -> list[str]:
        """Hex digest of each record."""

    def unlike(self, other: Batch) -> tuple[int, str] | None:
        """Records that are others at the same place of another batch: how many, and the id of the first."""

    def filter(self, mask: bytes) -> Batch:
        """The rows whose byte in `mask` is not zero."""

    @staticmethod
    def concat(batches: list[Batch]) -> Batch:
        """Batches of one schema as one."""

    def take(self, rows: list[int]) -> Batch:
        """The rows with these numbers, in that order."""

    def rows(self) -> list[tuple[str, bytes, list[_Vector]]]:
        """Rows of a raw batch: key, body, vectors."""

    @staticmethod
    def from_rows(rows: list[tuple[str, bytes, list[_Vector]]]) -> Batch:
        """A raw batch of rows: key, body, vectors."""

    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

@final
class Mapper:
    """Runs one profile table."""

    def __new__(cls, profile_json: str, escaped: bool, *, gathering: bool = False) -> Mapper: ...
    @property
    def profile(self) -> str:
        """Name of the profile."""

    @property
    def nests_observations(self) -> bool:
        """Whether observations live inside their owners."""

    @property
    def kinds(self) -> list[str]:
        """Kinds with a table of their own."""

    def decode(self, raw: Batch) -> tuple[Batch, list[_Quarantined], int]:
        """Raw to canonical: records, quarantined rows, records exploded out of others."""

    def encode(
        self,
        records: Batch,
        *,
        namespace: str | None = None,
        accepted: list[str] = ...,
        nested: dict[str, list[str]] | None = None,
        marker: str | None = None,
    ) -> tuple[Batch, list[int], list[_Quarantined], int]:
        """Canonical to raw: raw batch, row numbers behind it, quarantined records, observations nested."""

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """Gaps of the records against this profile: name, records, id of the first."""

    @staticmethod
    def quarantine(records: Batch, reason: str, message: str) -> list[_Quarantined]:
        """Records as quarantine entries, whole, for a reason found outside the mapper."""

@final
class EmbeddedStore:
    """One connection to an embedded store."""

    @staticmethod
    def open_source(path: _Path) -> EmbeddedStore:
        """Opens a store read-only."""

    @staticmethod
    def open_target(path: _Path) -> EmbeddedStore:
        """Opens a store to write it, making it where there is none."""

    def store_id(self) -> str: ...
    def data_version(self) -> int: ...
    def count(self, kind: str) -> int: ...
    def bounds(self, kind: str) -> tuple[int, int] | None: ...
    def read_page(
        self,
        kind: str,
        after: int,
        until: int | None,
        max_records: int,
        max_bytes: int,
        *,
        with_vectors: bool = True,
    ) -> tuple[Batch, list[_Quarantined], int, int | None]:
        """Records, quarantined rows, rows read, `seq` to go on after."""

    def fetch(self, kind: str, ids: list[str]) -> tuple[Batch, list[_Quarantined]]: ...
    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...
    def write(
        self,
        records: Batch,
        *,
        marker: str | None = None,
        fresh: bool = False,
        indexed: bool = False,
    ) -> list[int]:
        """Writes records over what is there; the rows with more vectors than fit, which are not written.

        `indexed` keeps the text index in step; without it the caller marks the index as behind.
        """

    def delete(self, kind: str, ids: list[str], *, indexed: bool = False) -> int: ...
    def ledger_put(self, migration: str, key: str, value: str) -> None: ...
    def ledger_get(self, migration: str, key: str) -> str | None: ...
    def ledger_scan(self, migration: str, prefix: str, after: str, limit: int) -> list[tuple[str, str]]: ...
    def ledger_delete(self, migration: str, prefix: str) -> None: ...
    def ledger_migrations(self) -> list[str]: ...
    def journal_open(self) -> None:
        """Makes the journal of a foreign target where there is none."""

    def journal_intend(self, records: Batch, migration: str) -> None:
        """Says that a migration is about to write these records, as the target will give them back."""

    def journal_confirm(self, records: Batch, migration: str) -> None:
        """Says that these records are in the target."""

    def journal_confirm_all(self, migration: str) -> None:
        """Says that everything a migration intended is in the target."""

    def journal_mark(self, records: Batch) -> Batch:
        """Records of the target with their markers."""

    def journal_forget(self, identities: list[tuple[str, str]]) -> None:
        """Drops what is known of records that are gone."""

    def journal_drop(self, migration: str) -> None:
        """Drops what is known of a migration."""

    def mark_text_stale(self) -> None: ...
    def rebuild_text(self) -> None: ...
    def quick_check(self) -> str: ...
    def search_text(
        self,
        kind: str,
        words: str,
        limit: int,
        *,
        scope: list[tuple[str, str]] = ...,
    ) -> list[tuple[str, float]]: ...
    def search_vector(
        self,
        kind: str,
        name: str,
        query: list[float],
        limit: int,
        *,
        scope: list[tuple[str, str]] = ...,
    ) -> list[tuple[str, float]]: ...

_Outcome: TypeAlias = tuple[Batch, bytes, list[_Quarantined], list[tuple[str, int, str]]]

@final
class Embedding:
    """What is embedded, and the vectors that were made so far."""

    def __new__(cls, settings_json: str) -> Embedding: ...
    def preview(self, records: Batch, sample: bytes) -> _Outcome:
        """The records as they will be, with a sample where a new vector is to be made."""

    def extent(self, records: Batch) -> tuple[int, int]:
        """How many records get a new vector, and the bytes of their texts."""

    def missing(self, records: Batch, cache: EmbeddingCache) -> list[tuple[bytes, str]]:
        """Keys and texts of those that the cache lacks, each once."""

    def apply(self, records: Batch, cache: EmbeddingCache, refused: list[tuple[bytes, str]]) -> _Outcome:
        """The records with the vectors of the cache; those whose text was refused are quarantined."""

@final
class EmbeddingCache:
    """The vectors of one model, kept in a file."""

    def __new__(cls, path: _Path, model: str, dimensions: int) -> EmbeddingCache: ...
    def get(self, text: str) -> bytes | None:
        """The vector of a text, `f32` little-endian; None where it was not made yet."""

    def keep(self, keys: list[bytes], vectors: list[bytes]) -> None:
        """Keeps vectors under the keys of their texts, all or none."""

def text_key(text: str) -> bytes:
    """The key under which the vector of a text is kept."""

@final
class JsonlReader:
    """Reads one file in pages."""

    def __new__(cls, path: _Path) -> JsonlReader: ...
    @property
    def seekable(self) -> bool:
        """Whether byte ranges can be read in parallel."""

    def read_page(
        self,
        start: int,
        until: int | None,
        max_records: int,
        max_bytes: int,
    ) -> tuple[Batch, int, int | None]:
        """Raw batch, lines read, offset to go on at."""

@final
class JsonlPart:
    """Writes one part file."""

    def __new__(cls, path: _Path, whole: _Path) -> JsonlPart: ...
    def append(self, raw: Batch) -> None:
        """Appends one line a row."""

    def finish(self) -> None:
        """Ends the part: on return it is on the disk."""

@final
class JsonlIndex:
    """Finds records of an existing file."""

    def __new__(cls, path: _Path, mapper: Mapper) -> JsonlIndex: ...
    def fetch(self, mapper: Mapper, identities: list[tuple[str, str]]) -> Batch:
        """The records with these kinds and ids."""

    def replace(self, identities: list[tuple[str, str]]) -> None:
        """Leaves these records out of the rest."""

    def rest(self, start: int) -> tuple[Batch, int | None]:
        """Lines nobody replaced from an offset on, and where to go on."""

@final
class QdrantStore:
    """A client of one Qdrant server; threads may share it."""

    def __new__(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        ca_pem: str | None = None,
        timeout_secs: float = 60.0,
    ) -> QdrantStore: ...
    def exists(self, collection: str) -> bool: ...
    def collections(self) -> list[str]:
        """Names of all collections."""

    def info(self, collection: str) -> str:
        """What is known of a collection, as JSON."""

    def create(self, collection: str, vectors_json: str, *, deferred_index: bool = False) -> int | None:
        """Makes a collection; the indexing threshold it had before it was deferred.

        One that is there by then is left as it is: look at it.
        """

    def set_indexing_threshold(self, collection: str, threshold: int | None) -> None:
        """Sets it in KiB; 0 for no index, None for the default of servers."""

    def delete_collection(self, collection: str) -> bool: ...
    def create_payload_index(self, collection: str, field: str, field_type: str) -> None: ...
    def wait_green(self, collection: str, deadline_secs: float) -> bool:
        """Whether the collection is optimized within the deadline."""

    def scroll(
        self,
        collection: str,
        start: str | None,
        until: str | None,
        max_records: int,
        max_bytes: int,
        *,
        filter: list[tuple[str, str]] = ...,
        with_vectors: bool = True,
    ) -> tuple[Batch, int, str | None]:
        """Raw batch, points read, id to go on at."""

    def get(self, collection: str, keys: list[str], *, with_vectors: bool = True) -> Batch:
        """The points with these ids that there are, in the order of the ids."""

    def count(self, collection: str, *, filter: list[tuple[str, str]] = ..., exact: bool = True) -> int: ...
    def upsert(self, collection: str, raw: Batch) -> list[tuple[int, str]]:
        """Writes a raw batch and waits until it is applied; rows that were not written, with the reason."""

    def submit(self, collection: str, raw: Batch) -> QdrantTicket:
        """Starts to write a raw batch."""

    def delete(self, collection: str, keys: list[str]) -> None: ...
    def put_documents(self, collection: str, documents: list[tuple[str, str]]) -> None:
        """Writes JSON objects under ids as payloads without vectors."""

    def query(
        self,
        collection: str,
        vector_name: str,
        vector: list[float],
        limit: int,
        *,
        filter: list[tuple[str, str]] = ...,
        exact: bool = False,
    ) -> list[tuple[str, float]]:
        """Ids and scores of the nearest points, best first."""

@final
class QdrantTicket:
    """A batch on its way to a server."""

    def ack(self) -> list[tuple[int, str]]:
        """Waits until the batch is applied; rows that were not written, with the reason. Only once."""

@final
class Buckets:
    """Count and sum by bucket."""

    def __new__(cls, buckets: int) -> Buckets: ...
    def add(self, records: Batch, *, only: str | None = None, unmarked: bool = False) -> int:
        """Adds records, with `only` those marked by that migration (`unmarked`: or by none); how many were left out."""

    def add_with_images(self, records: Batch, images: Batch, others: Buckets) -> None:
        """Adds records here and their images to `others`; made once where these are the records themselves."""

    def unequal(self, other: Buckets) -> list[int]:
        """Buckets that differ."""

    def by_kind(self) -> list[int]:
        """Records added: entities, memories, observations, relations."""

    def total(self) -> str:
        """Hex digest over everything."""

@final
class Drill:
    """Record by record comparison within some buckets."""

    def __new__(cls, buckets: int, wanted: list[int]) -> Drill: ...
    def expect(self, records: Batch) -> None:
        """Adds records as the target is expected to hold them."""

    def find(self, records: Batch, *, marker: str | None = None, unmarked: bool = False) -> None:
        """Adds records the target holds."""

    def findings(self) -> list[tuple[str, str, str]]:
        """What, kind and id of everything that differs."""

@final
class Keys:
    """Keys of records, 16 bytes each."""

    def __new__(cls) -> Keys: ...
    def __len__(self) -> int: ...
    def add(self, records: Batch) -> None:
        """Adds kind and id of every record."""

    def add_identities(self, identities: list[tuple[str, str]]) -> None:
        """Adds kinds and ids."""

    def contains(self, records: Batch) -> bytes:
        """One byte a record: 1 where its kind and id were added."""

    def add_places(self, records: Batch, namespace: str) -> None:
        """Adds where a store that files all kinds together, under UUIDs and numbers, has every record."""

    def contains_places(self, records: Batch, namespace: str) -> bytes:
        """One byte a record: 1 where its place was added."""

    def contains_owners(self, records: Batch) -> bytes:
        """One byte a record: 1 where its owner was added as an entity."""

    def contains_identities(self, identities: list[tuple[str, str]]) -> bytes:
        """One byte an identity: 1 where this kind and id were added."""

    def repeated(self) -> Keys:
        """Only the keys that were added more than once."""

@final
class Spill:
    """Observations on their way to the entities they go into."""

    def __new__(cls, folder: _Path, cache_bytes: int) -> Spill: ...
    def add(self, records: Batch) -> None:
        """Adds the observations of a batch."""

    def attach(self, records: Batch) -> tuple[Batch, int]:
        """The batch with the observations of its entities within them, and how many those are."""

    def displaced(self) -> tuple[int, str] | None:
        """How many observations do not get the place that their id says, and the id of one; None where all do."""

def gathered(records: Batch) -> int:
    """How many observations were gathered into the entities of a batch."""

@final
class Transform:
    """Runs the decisions of a plan on batches."""

    def __new__(cls, decisions_json: str) -> Transform: ...
    def apply(self, records: Batch) -> tuple[Batch, bytes, list[_Quarantined], list[tuple[str, int, str]]]:
        """Records that go on, a byte a row, quarantined rows, dropped gaps.

        The byte: 0 kept, 1 filtered, 2 deduplicated, 3 quarantined. A gap: name, records, id of the first.
        """

@final
class DedupKeys:
    """Keys by which records say the same, at most 20 bytes each."""

    def __new__(cls, *, exact: bool = False) -> DedupKeys: ...
    def __len__(self) -> int: ...
    @property
    def held_bytes(self) -> int:
        """Bytes held for the keys."""

    def add(self, records: Batch) -> None:
        """Adds the keys of records."""

    def keys(self, records: Batch) -> list[str | None]:
        """Hex key of each record, None where it has no text to compare."""

    def repeated(self) -> tuple[DedupKeys, int]:
        """Only the keys that stand more than once, each once, and how many records have one of them."""

    def members(self, records: Batch) -> list[tuple[int, str]]:
        """Row and hex key of the records whose key was added."""

@final
class Sample:
    """A sample of records that does not depend on their order."""

    def __new__(cls, size: int) -> Sample: ...
    def add(self, records: Batch) -> None:
        """Adds records."""

    def largest(self) -> str | None:
        """Hex of the largest identity that is in it, None where there is none."""

def check_mapping(mapping_json: str) -> None:
    """Refuses a mapping in its JSON form that contradicts itself; the error begins with the path of what is wrong."""

def check_where(expression: str) -> None:
    """Refuses a filter that does not compile or cannot give yes or no."""

def classify(source: Batch, existing: Batch, migration: str) -> bytes:
    """One byte a source record: 0 create, 1 update, 2 unchanged, 3 conflict, 4 existing."""

def standings(records: Batch, migration: str) -> bytes:
    """One byte a record: 0 not written by the migration, 1 as it wrote it, 2 changed since."""

def diff(
    expected: Batch,
    found: Batch,
) -> list[tuple[str, str, list[tuple[str, str | None, str | None]]]]:
    """Kind, id and differing fields of the records that stand in both batches and are not equal."""

def normalize_vectors(records: Batch, names: list[str]) -> Batch:
    """The batch with every dense or multi vector of these names at length one, so that a Cosine collection keeps it."""

def vectors_not_finite(records: Batch, names: list[str]) -> list[int]:
    """Rows with a NaN or an infinity in a dense or multi vector of these names."""

def give_up_vectors(records: Batch, *, finite: list[str] = ..., unnamed: str | None = None) -> Batch:
    """The batch without vectors that a store cannot keep.

    Args:
        records: Canonical batch.
        finite: Names of which no dense or multi vector with a NaN or an infinity is kept.
        unnamed: What the store calls a vector without a name; of those of one name it keeps the first.
    """

def split_halves(records: Batch) -> tuple[Batch, Batch]:
    """Records without the vectors that a vector store holds, and those vectors with kind, id and scope."""

def join_halves(records: Batch, points: Batch, *, scopes_of_points: bool = False) -> tuple[Batch, bytes]:
    """Whole records, and one byte a record: 1 where a vector that it knows of is missing.

    With `scopes_of_points` they have the scope that their vectors are filtered by.
    """

def owned_points(records: Batch, points: Batch) -> bytes:
    """One byte a row of vectors: 1 where there is a record that it belongs to."""

def qdrant_given_back(raw: Batch) -> tuple[Batch, list[int]]:
    """A raw batch with doubles as Qdrant gives them back, and the rows in which one changes by it."""

def qdrant_to_come_back(raw: Batch) -> Batch:
    """A raw batch that was read from Qdrant, with the doubles to be written so that it comes back as it is."""

def jsonl_align(path: _Path, offset: int) -> int:
    """The start of the first line at or after `offset`."""

def jsonl_concatenate(parts: list[Any], whole: _Path) -> None:
    """Joins part files and renames the result into place."""

def blake3_hex(data: bytes) -> str:
    """Hex BLAKE3 of bytes."""

def error_codes() -> list[tuple[str, bool]]:
    """All codes with whether they are transient."""

def store_keys(identities: list[tuple[str, str]], namespace: str) -> list[str]:
    """The keys under which a store that takes only UUIDs and u64 files records of these kinds and ids."""

def gap_names() -> list[str]:
    """Names of all gaps."""
