"""The contract of every profile table: `encode(decode(raw)) == raw`, and tables that contradict themselves."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from memferry._native import Batch, Mapper
from memferry.errors import RefusedError
from memferry.profiles import load_mapper, profile_names
from reference.json_values import Value
from reference.strategies import JSON_VALUES, TEXTS, documents

NATIVE = load_mapper("native", "document")
SERVER_MEMORY = load_mapper("server-memory", "document")


def table(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("memferry.profiles").joinpath(f"{name}.json").read_text("utf-8"))
    return loaded


def decode(mapper: Mapper, body: str, key: str = "7") -> Batch:
    records, quarantined, _ = mapper.decode(Batch.from_rows([(key, body.encode(), [])]))
    assert quarantined == []
    return records


def lists(records: Batch) -> dict[str, list[str]]:
    """Contents of the observations, by owner and in their order."""
    rows = [i for i, (kind, _) in enumerate(records.identities()) if kind == "observation"]
    raw, _, quarantined, _ = NATIVE.encode(records.take(rows))
    assert quarantined == []
    found: dict[str, list[str]] = {}
    for _, body, _ in raw.rows():
        document = json.loads(body)
        found.setdefault(document["owner_id"], []).append(document["content"])
    return found


def encode(mapper: Mapper, records: Batch) -> str:
    nested = lists(records) if mapper.nests_observations else {}
    raw, rows, quarantined, _ = mapper.encode(records, nested=nested)
    assert (rows, quarantined) == ([0], [])
    return raw.rows()[0][1].decode()


def same(left: str, right: str) -> bool:
    """Whether two documents are equal as JSON values; NaN apart, which plain JSON has not."""
    return reference.canonical(reference.parse_json(left)) == reference.canonical(reference.parse_json(right))


# -- native documents


def normal(document: dict[str, Value]) -> Value:
    """Leaves out what says nothing: an empty `extra`, no vectors, empty names of vectors."""
    vectors = document.get("vectors")
    if isinstance(vectors, list):
        document["vectors"] = [
            {k: v for k, v in one.items() if (k, v) != ("name", "")} if isinstance(one, dict) else one
            for one in vectors
        ]
    idle: dict[str, Value] = {"extra": {}, "vectors": []}
    marker = reference.decode(reference.canonical(document)).marker
    if marker is not None:
        document["_memferry"] = {"migration": marker.migration, "digest": marker.digest}
    return {k: v for k, v in document.items() if idle.get(k, ...) != v}


@settings(max_examples=400)
@given(documents())
def test_native_documents_come_back_with_unknown_fields_at_every_level(text: str) -> None:
    records, quarantined, _ = NATIVE.decode(Batch.from_rows([("7", text.encode(), [])]))
    if quarantined:
        return
    document = reference.parse_canonical(text)
    assert isinstance(document, dict)
    assert encode(NATIVE, records) == reference.canonical(normal(document))


# -- server-memory

ENTITIES = st.fixed_dictionaries(
    {"type": st.just("entity"), "name": TEXTS, "entityType": TEXTS, "observations": st.lists(TEXTS, max_size=4)},
)
RELATIONS = st.fixed_dictionaries({"type": st.just("relation"), "from": TEXTS, "to": TEXTS, "relationType": TEXTS})
UNKNOWN = st.dictionaries(TEXTS.map(lambda key: f"x{key}"), JSON_VALUES, min_size=1, max_size=3)


def with_unknown(known: dict[str, Any], unknown: dict[str, str]) -> str:
    """A document with members given as JSON texts beside its own."""
    members = {key: json.dumps(value) for key, value in known.items()} | unknown
    return "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in members.items()) + "}"


@given(st.one_of(ENTITIES, RELATIONS))
def test_server_memory_comes_back(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    records = decode(SERVER_MEMORY, text)
    assert len(records) == 1 + len(document.get("observations", []))
    assert SERVER_MEMORY.gaps(records) == []
    assert same(encode(SERVER_MEMORY, records), text)


@given(st.one_of(ENTITIES, RELATIONS), UNKNOWN)
def test_server_memory_reports_fields_the_server_would_drop(known: dict[str, Any], unknown: dict[str, str]) -> None:
    text = with_unknown(known, unknown)
    records = decode(SERVER_MEMORY, text)
    identity = records.identities()[0][1]
    assert SERVER_MEMORY.gaps(records) == [("extra-fields", 1, identity)]
    raw, rows, quarantined, _ = SERVER_MEMORY.encode(records, nested=lists(records))
    assert (len(raw), rows) == (0, [])
    [(key, kind, original, reason, message, whole)] = quarantined
    assert (key, kind, original, reason) == ("7", known["type"], identity, "gap")
    assert "extra-fields" in message
    kept = reference.parse_canonical(whole)
    assert isinstance(kept, dict)
    plain = reference.parse_json("{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in unknown.items()) + "}")
    assert kept["extra"] == plain


def test_server_memory_drops_unknown_fields_once_that_is_accepted() -> None:
    known = {"type": "entity", "name": "a", "entityType": "t", "observations": []}
    records = decode(SERVER_MEMORY, with_unknown(known, {"x": "1"}))
    raw, rows, quarantined, _ = SERVER_MEMORY.encode(records, accepted=["extra-fields"])
    assert (rows, quarantined) == ([0], [])
    assert same(raw.rows()[0][1].decode(), json.dumps(known))


@pytest.mark.parametrize("lists_nothing", ['"observations":[]', '"observations":null', '"observations":[1]', ""])
def test_an_entity_that_lists_nothing_comes_back_as_it_was(lists_nothing: str) -> None:
    text = '{"type":"entity","name":"a","entityType":"t"' + (f",{lists_nothing}" if lists_nothing else "") + "}"
    open_table = table("server-memory-document")
    open_table["kinds"][0]["fixed"] = False
    mapper = Mapper(json.dumps(open_table), escaped=False)
    records = decode(mapper, text)
    assert same(encode(mapper, records), text)
    through = decode(NATIVE, encode(NATIVE, records))
    assert through.digests() == records.digests()
    assert same(encode(mapper, through), text)


def test_an_entity_without_a_list_gets_one_when_there_is_something_to_list() -> None:
    text = '{"type":"entity","name":"a","entityType":"t"}'
    records = decode(SERVER_MEMORY, text)
    assert SERVER_MEMORY.gaps(records) == []
    assert same(encode(SERVER_MEMORY, records), text)
    raw, _, _, nested = SERVER_MEMORY.encode(records, nested={"a": ["x"]})
    assert nested == 1
    assert same(raw.rows()[0][1].decode(), '{"type":"entity","name":"a","entityType":"t","observations":["x"]}')


def test_an_entity_whose_list_is_something_else_gets_none_over_it() -> None:
    open_table = table("server-memory-document")
    open_table["kinds"][0]["fixed"] = False
    mapper = Mapper(json.dumps(open_table), escaped=False)
    records = decode(mapper, '{"type":"entity","name":"a","entityType":"t","observations":5}')
    raw, _, [entry], _ = mapper.encode(records, nested={"a": ["x"]})
    assert (len(raw), entry[3]) == (0, "field-clash")


@pytest.mark.parametrize(
    ("members", "gaps"),
    [
        ('"content":"x"', []),
        ('"content":"x","created_at":"2024-06-15"', ["created-at"]),
        ('"content":"x","extra":{"$position":0,"x":1}', ["extra-fields"]),
        ('"content":"x","unknown":1', ["extra-fields"]),
        ('"content":"x","tags":["a"]', ["tags"]),
        ('"content":"x","vectors":[{"kind":"dense","dim":1,"data":"AAAAAA=="}]', ["vectors"]),
        ('"content":"x","id":"o"', ["ids"]),
        ('"content":"x","owner_id":"b"', ["ids"]),
        ('"content":"x","extra":{"$position":1}', ["ids"]),
        ('"content":"x","extra":{}', ["ids"]),
        ('"name":"x"', ["content", "names"]),
    ],
)
def test_a_nested_observation_is_its_text_and_its_place(members: str, gaps: list[str]) -> None:
    usual = {"kind": "observation", "id": "a#0", "owner_id": "a", "extra": {"$position": 0}}
    document = json.dumps(usual | json.loads("{" + members + "}"))
    assert [name for name, _, _ in SERVER_MEMORY.gaps(decode(NATIVE, document))] == gaps


@pytest.mark.parametrize(
    ("members", "flat", "stored"),
    [
        ("", [], []),
        ('"name":"title"', ["vector-names"], []),
        ('"normalized":false', ["vector-normalized"], ["vector-normalized"]),
        (
            '"normalized":true,"model":"m"',
            ["vector-models", "vector-normalized"],
            ["vector-models", "vector-normalized"],
        ),
    ],
)
def test_what_is_said_of_a_vector_is_a_gap_where_it_has_no_place(
    members: str, flat: list[str], stored: list[str]
) -> None:
    """A list of numbers in a body has no place for a name, a collection of others none for the rest."""
    vector = {"kind": "dense", "dim": 1, "data": "AAAAAA=="} | json.loads("{" + members + "}")
    records = decode(NATIVE, json.dumps({"kind": "memory", "id": "a", "vectors": [vector]}))
    profile = table("plain-point")
    for place, expected in (("store", stored), ({"floats": "embedding"}, flat), ({"objects": "vectors"}, [])):
        profile["kinds"][0]["vectors"] = place
        mapper = Mapper(json.dumps(profile), escaped=True)
        assert [name for name, _, _ in mapper.gaps(records)] == expected
        raw, _, bad, _ = mapper.encode(records, accepted=expected)
        again, _, _ = mapper.decode(raw)
        # What comes back is what the store keeps, not what it was told.
        assert (bad, mapper.gaps(again)) == ([], [])


def test_two_vectors_of_one_stored_name_are_a_gap() -> None:
    one = {"kind": "dense", "dim": 1, "data": "AAAAAA=="}
    both = [one, one | {"name": "default"}]
    records = decode(NATIVE, json.dumps({"kind": "memory", "id": "a", "vectors": both}))
    assert load_mapper("native", "point").gaps(records) == [("several-vectors", 1, "a")]
    assert load_mapper("plain", "point").gaps(records) == []
    assert load_mapper("native", "node").gaps(records) == []
    records = decode(NATIVE, json.dumps({"kind": "memory", "id": "a", "vectors": [one, one]}))
    for profile, shape, gaps in (
        ("native", "node", []),
        ("native", "point", ["several"]),
        ("plain", "point", ["several"]),
    ):
        assert [name for name, _, _ in load_mapper(profile, shape).gaps(records)] == [f"{gap}-vectors" for gap in gaps]


def test_a_node_of_ours_keeps_what_is_said_of_its_vectors() -> None:
    vector = {"kind": "dense", "dim": 1, "data": "AAAAAA==", "model": "m", "normalized": False, "name": "title"}
    records = decode(NATIVE, json.dumps({"kind": "memory", "id": "a", "vectors": [vector]}))
    mapper = load_mapper("native", "node")
    raw, _, bad, _ = mapper.encode(records)
    assert (mapper.gaps(records), bad) == ([], [])
    assert [row[2][0][:4] for row in raw.rows()] == [("title", "m", 1, False)]


def relation(**members: str) -> Batch:
    usual = {"kind": "relation", "id": "1:a|1:t|1:b", "from_id": "a", "type": "t", "to_id": "b"}
    return decode(NATIVE, json.dumps({k: v for k, v in (usual | members).items() if v}))


def test_a_relation_whose_id_is_not_made_of_its_parts_is_a_gap() -> None:
    assert SERVER_MEMORY.gaps(relation()) == []
    assert SERVER_MEMORY.gaps(relation(id="r1")) == [("ids", 1, "r1")]
    assert SERVER_MEMORY.gaps(relation(to_id="c")) == [("ids", 1, "1:a|1:t|1:b")]


@pytest.mark.parametrize("part", ["from_id", "type", "to_id"])
def test_a_relation_without_a_part_of_its_id_is_quarantined(part: str) -> None:
    raw, rows, [entry], _ = SERVER_MEMORY.encode(relation(**{part: ""}), accepted=["ids"])
    assert (len(raw), rows, entry[3]) == (0, [], "no-id")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ('{"type":"note","name":"a"}', "unclaimed"),
        ('{"name":"a"}', "unclaimed"),
        ('{"type":"entity","entityType":"t"}', "no-id"),
        ('{"type":"entity","name":1}', "bad-id"),
        ('{"type":"relation","from":"a","to":"b"}', "no-id"),
        ('{"type":"entity","name":"a","name":"b"}', "not-json"),
    ],
)
def test_documents_that_are_no_records_are_quarantined_whole(document: str, reason: str) -> None:
    records, [row], exploded = SERVER_MEMORY.decode(Batch.from_rows([("7", document.encode(), [])]))
    assert (len(records), exploded) == (0, 0)
    assert (row[0], row[3], row[5]) == ("7", reason, document.encode())


def test_relations_with_the_same_parts_in_other_places_have_other_ids() -> None:
    triples = [("a|1:b", "c", "d"), ("a", "b|1:c", "d"), ("a", "b", "c|1:d"), ("a", "b", "c")]
    texts = [
        json.dumps(dict(zip(("type", "from", "relationType", "to"), ("relation", *t), strict=True))) for t in triples
    ]
    assert len({decode(SERVER_MEMORY, text).identities()[0][1] for text in texts}) == len(triples)


# -- every codec and place, in a table no system has

EVERYTHING = {
    "name": "everything",
    "kinds": [
        {
            "kind": "memory",
            "select": [{"path": ["meta", "is"], "equals": "m"}],
            "id": "key",
            "fields": [
                {"field": "content", "path": ["meta", "text"]},
                {"field": "scope_user", "path": "$$user"},
                {"field": "provenance", "path": "origin", "codec": "json"},
                {"field": "created_at", "path": "iso"},
                {"field": "updated_at", "path": "seconds", "codec": "epoch-seconds"},
                {"field": "valid_from", "path": "millis", "codec": "epoch-millis"},
                {"field": "valid_to", "path": "any", "codec": "time"},
                {"field": "confidence", "path": "score"},
                {"field": "strength", "path": "score text", "codec": "text"},
                {"field": "version", "path": "version"},
                {"field": "tags", "path": "tags", "codec": "comma"},
            ],
            "vectors": {"floats": "embedding"},
        },
    ],
}
SHAPES = {
    "$user": TEXTS.map(json.dumps),
    "iso": st.sampled_from(['"2024-06-15T10:30:00Z"', '"2024-06-15"', '"no"']),
    "seconds": st.one_of(st.integers(-(2**63), 2**63).map(str), st.floats(-1e13, 1e13).map(repr)),
    "millis": st.one_of(st.integers(-(2**63), 2**63).map(str), st.floats(-1e13, 1e13).map(repr)),
    "any": st.one_of(st.sampled_from(['"2024-06-15"', '"no"']), st.integers(-(2**63), 2**63).map(str)),
    "score": st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "score text": st.floats(allow_nan=False, allow_infinity=False).map(lambda f: f'"{f!r}"'),
    "version": st.integers(-(2**64), 2**64).map(str),
    "tags": TEXTS.map(lambda text: json.dumps(f"{text},{text}")),
    "embedding": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=3).map(json.dumps),
}


@st.composite
def everything(draw: st.DrawFn) -> str:
    names = draw(st.sets(st.sampled_from([*SHAPES, "origin", "unknown", "$top"])))
    members = {name: draw(st.one_of(SHAPES.get(name, JSON_VALUES), JSON_VALUES)) for name in names}
    inner = draw(st.dictionaries(st.sampled_from(["text", "unknown", "$x"]), JSON_VALUES))
    return with_unknown({}, members | {"meta": with_unknown({"is": "m"}, inner)})


@settings(max_examples=400)
@given(everything(), TEXTS)
def test_every_codec_brings_back_what_it_read(text: str, key: str) -> None:
    mapper = Mapper(json.dumps(EVERYTHING), escaped=False)
    records = decode(mapper, text, key)
    assert records.identities() == [("memory", key)]
    assert same(encode(mapper, records), text)


def test_minus_zero_seconds_come_back() -> None:
    mapper = Mapper(json.dumps(EVERYTHING), escaped=False)
    text = '{"seconds":-0.0,"meta":{"is":"m"}}'
    assert same(encode(mapper, decode(mapper, text)), text)


def test_what_is_read_is_never_too_deep_to_be_written() -> None:
    mapper = Mapper(json.dumps(EVERYTHING), escaped=False)
    number = "[" * 179 + "1e400" + "]" * 179
    text = '{"unknown":' + number + ',"origin":' + number + ',"meta":{"is":"m"}}'
    records = decode(mapper, text)
    assert same(encode(mapper, records), text)
    assert decode(NATIVE, encode(NATIVE, records)).digests() == records.digests()
    for profile, depth in ((mapper, 181), (NATIVE, 191)):
        body = '{"kind":"memory","id":"a","unknown":' + "[" * depth + "]" * depth + ',"meta":{"is":"m"}}'
        _, [row], _ = profile.decode(Batch.from_rows([("7", body.encode(), [])]))
        assert row[3] == "not-json"


def test_what_nobody_would_read_is_not_written() -> None:
    records = decode(NATIVE, '{"kind":"memory","id":"a","unknown":' + "[" * 190 + "]" * 190 + "}")
    mapper = Mapper(kind(), escaped=False)
    raw, _, [entry], _ = mapper.encode(records)
    assert (len(raw), entry[3]) == (0, "too-deep")


@given(everything())
def test_what_any_table_read_fits_into_native_documents(text: str) -> None:
    records = decode(Mapper(json.dumps(EVERYTHING), escaped=False), text)
    assert reference.digest(reference.decode(encode(NATIVE, records))) == records.digests()[0]


@given(st.one_of(ENTITIES, RELATIONS), UNKNOWN)
def test_a_system_that_keeps_unknown_fields_gets_them_back(known: dict[str, Any], unknown: dict[str, str]) -> None:
    open_table = table("server-memory-document")
    for kind in open_table["kinds"]:
        kind["fixed"] = False
    mapper = Mapper(json.dumps(open_table), escaped=False)
    text = with_unknown(known, unknown)
    assert same(encode(mapper, decode(mapper, text)), text)


# -- the tables themselves


@pytest.mark.parametrize(
    ("profile", "shape"), [(p, s) for s in ("document", "point", "node") for p in profile_names(s)]
)
def test_tables_load_and_say_what_they_are(profile: str, shape: str) -> None:
    loaded = table(f"{profile}-{shape}")
    mapper = load_mapper(profile, shape)
    assert (mapper.profile, loaded["name"]) == (profile, profile)
    assert mapper.kinds == [kind["kind"] for kind in loaded["kinds"]]
    assert loaded["description"]


SKETCHES = [
    block.split("```", 1)[0]
    for block in (Path(__file__).parents[2] / "docs" / "profiles.md").read_text("utf-8").split("```json\n")[1:]
]
ROWS = {
    "server-memory": ['{"type":"relation","from":"a","to":"b","relationType":"t"}'],
    "mem0": ['{"data":"x","user_id":"u","hash":"h","created_at":"2024-06-15T10:30:00-07:00","k":{"$$a":1}}'],
    "mcp-memory-service": [
        '{"$table":"memories","content_hash":"h","content":"x","tags":"a,b","metadata":"{ }","created_at":17.25}',
        '{"$table":"memory_graph","source_hash":"h","target_hash":"g","similarity":0.9,"connection_types":"[]"}',
    ],
    "graphiti": [
        '{"$labels":"Entity","uuid":"e","name":"Ann","summary":"","name_embedding":[0.5,0.1],"group_id":"g"}',
        '{"$type":"RELATES_TO","$from":"a","$to":"b","uuid":"r","fact":"x","episodes":["e"],"expired_at":null}',
    ],
}


@pytest.mark.parametrize("sketch", SKETCHES, ids=lambda sketch: json.loads(sketch)["name"])
def test_tables_in_the_documentation_run(sketch: str) -> None:
    name = json.loads(sketch)["name"]
    mapper = Mapper(sketch, escaped=name != "server-memory")
    for row in ROWS[name]:
        assert reference.parse_canonical(encode(mapper, decode(mapper, row))) == reference.parse_canonical(row)


def test_native_tables_hold_every_field_of_every_kind() -> None:
    for shape in ("document", "point"):
        by_kind = {kind["kind"]: {f["field"] for f in kind["fields"]} for kind in table(f"native-{shape}")["kinds"]}
        assert set(by_kind) == {"entity", "memory", "observation", "relation"}
        assert all(len(fields) == 23 for fields in by_kind.values())
        assert len({frozenset(fields) for fields in by_kind.values()}) == 1


def kind(**members: object) -> str:
    return json.dumps({"name": "mine", "kinds": [{"kind": "memory", "id": "key", **members}]})


def fields(*rows: tuple[str, object] | tuple[str, object, str]) -> str:
    return kind(fields=[dict(zip(("field", "path", "codec"), row, strict=False)) for row in rows])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "profile table"),
        ('{"name":"mine"}', "missing field `kinds`"),
        ('{"name":"mine","kinds":[],"color":1}', "unknown field `color`"),
        (kind(color=1), "unknown field `color`"),
        (kind(id="row"), "unknown variant `row`"),
        (kind(kind="thought"), 'unknown kind "thought"'),
        (kind(extra="beside"), "unknown variant `beside`"),
        (kind(fill=[{"path": "hash", "value": "sha1"}]), "unknown variant `sha1`"),
        (fields(("flavor", "x")), 'unknown field "flavor"'),
        (fields(("created_at", "x", "roman")), "allowed: time, iso-time, epoch-seconds, epoch-millis"),
        (fields(("content", "x", "comma")), "allowed: json, or none for text"),
        (fields(("confidence", "x", "json")), "allowed: text, or none for a number"),
        (fields(("tags", "x", "json")), "allowed: comma, or none for a list"),
        (fields(("version", "x", "text")), 'unknown field "version"'),
        (fields(("content", "x"), ("name", "x")), "memory: ["),
        (fields(("content", "x"), ("name", ["x", "y"])), "is mapped twice"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        Mapper(text, escaped=False)
    assert message in str(caught.value)


SECOND = {"kind": "memory", "id": "key"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(fields(("content", "x"), ("content", "y")), id="one field from two places"),
        pytest.param(fields(("content", [])), id="empty path"),
        pytest.param(fields(("provenance", "x")), id="provenance without json"),
        pytest.param(kind(id={"path": "x"}, fields=[{"field": "content", "path": "x"}]), id="id and field"),
        pytest.param(
            kind(select=[{"path": "x", "equals": "m"}], fields=[{"field": "content", "path": "x"}]),
            id="select and field",
        ),
        pytest.param(
            kind(extra={"object": "x"}, fields=[{"field": "content", "path": "x"}]),
            id="extra and field",
        ),
        pytest.param(kind(vectors={"floats": "x"}, extra={"object": "x"}), id="vectors and extra"),
        pytest.param(kind(id={"join": []}), id="id of nothing"),
        pytest.param(json.dumps({"name": "mine", "kinds": [SECOND, SECOND]}), id="one kind twice"),
        pytest.param(json.dumps({"name": "mine", "kinds": []}), id="no kind"),
        pytest.param(
            json.dumps({"name": "mine", "kinds": [SECOND, {"kind": "entity", "id": "key"}]}),
            id="a kind that is never chosen",
        ),
        pytest.param(
            json.dumps(
                {
                    "name": "mine",
                    "kinds": [
                        SECOND | {"select": [{"path": "a", "equals": "1"}]},
                        {
                            "kind": "entity",
                            "id": "key",
                            "select": [{"path": "b", "equals": "2"}, {"path": "a", "equals": "1"}],
                        },
                    ],
                },
            ),
            id="a kind whose rows another takes",
        ),
        pytest.param(kind(id={"join": ["x"]}), id="id of what is no field"),
        pytest.param(kind(id={"join": ["x"]}, fields=[{"field": "version", "path": "x"}]), id="id of a number"),
        pytest.param(kind(marker="x", fields=[{"field": "content", "path": "x"}]), id="marker and field"),
        pytest.param(kind(explode={"path": "x"}, fields=[{"field": "tags", "path": "x"}]), id="list and field"),
        pytest.param(
            kind(fill=[{"path": "x", "value": "empty-list"}], fields=[{"field": "tags", "path": "x"}]),
            id="fill and field",
        ),
        pytest.param(
            kind(select=[{"path": "x", "equals": "1"}, {"path": "x", "equals": "2"}]),
            id="two constants in one place",
        ),
        pytest.param(kind(extra={"object": ["x", "y"]}, vectors={"floats": "x"}), id="one place within another"),
    ],
)
def test_more_contradictions(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        Mapper(text, escaped=False)
    assert caught.value.code == "profile"


def test_an_unknown_kind_is_an_error_of_the_profile() -> None:
    with pytest.raises(RefusedError) as caught:
        Mapper(kind(kind="thought"), escaped=False)
    assert caught.value.code == "profile"
