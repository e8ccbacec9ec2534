"""Whatever a file, an amount or an answer holds, what can be read of it is read, and the rest is refused as meant."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from atelier.agent.events import EventReader
from atelier.errors import AtelierError, RefusedInput
from atelier.quantities import format_bytes, format_duration, parse_bytes, parse_cpu, parse_duration
from atelier.recorder.lines import LineFile
from atelier.recorder.spool import MANIFEST, damage
from atelier.records import RUN_ID, new_run_id
from atelier.service.store.curves import Curve
from atelier.service.store.streams import Point, parse_points
from atelier.settings import Image, Limits, Machine, Retention, Root, Settings, load_settings
from atelier.wire import STATUS, error_body, error_from, page_position, page_token, status_of
from tests.fuzzing import examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@contextmanager
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="atl-", dir="/dev/shm") as folder:
        yield Path(folder)


# -- amounts ------------------------------------------------------------------------------------------------------
AMOUNTS = st.text("0123456789.eE+-_ kKMGTPimhsdwunaf", max_size=12) | st.text(max_size=6)


@given(AMOUNTS | st.integers() | st.floats())
@examples(300)
@example("9" * 400)
@example("1" * 400 + "h")
@example("٣")
@example("1" + "0" * 400 + "m")
@example(math.inf)
@example(10**400)
def test_an_amount_is_a_number_or_refused(text: Any) -> None:
    for parse in (parse_bytes, parse_cpu, parse_duration):
        try:
            amount = parse(text)
        except RefusedInput as problem:
            code = problem.code
        else:
            code = "bad_quantity"
            assert 0 <= amount < math.inf, f"{parse.__name__}({text!r}) is {amount}"
        assert code == "bad_quantity"


@given(st.integers(0, 2**62))
@examples(200)
def test_an_amount_that_is_shown_reads_as_about_itself(size_bytes: int) -> None:
    shown = format_bytes(size_bytes)
    again = parse_bytes(shown.replace("iB", "i").removesuffix(" B"))
    assert abs(again - size_bytes) <= 0.06 * size_bytes, shown


@given(st.floats(0, 10**9))
@examples(200)
def test_a_length_of_time_that_is_shown_is_about_itself(seconds: float) -> None:
    shown = format_duration(seconds)
    again = parse_duration(shown.replace(" min", "m").replace(" ", ""))
    assert abs(again - seconds) <= max(0.51, 0.05 * seconds), shown


def test_ids_of_runs_are_ids_of_runs() -> None:
    ids = {new_run_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(RUN_ID.fullmatch(run_id) for run_id in ids)


# -- the wire -----------------------------------------------------------------------------------------------------
@given(st.integers(100, 599), JSON | st.fixed_dictionaries({"error": JSON | st.dictionaries(
    st.sampled_from(["code", "message", "hint", "detail"]), JSON)}))  # fmt: skip
@examples(200)
@example(500, {"error": {"detail": [1]}})
@example(404, {"error": {"detail": "x", "code": None}})
def test_any_answer_is_some_error(status: int, body: Any) -> None:
    error = error_from(status, body)
    assert isinstance(error, AtelierError)
    assert isinstance(error.code, str)
    assert isinstance(str(error), str)


@given(
    st.sampled_from(sorted(STATUS, key=str)),
    st.text(max_size=20),
    st.text(max_size=20),
    st.dictionaries(st.text(), JSON),
)
@examples(100)
def test_an_error_comes_over_the_wire_as_itself(
    kind: type[AtelierError], words: str, hint: str, detail: dict[str, Any]
) -> None:
    error = kind("some_code", words, hint=hint, detail=detail)
    back = error_from(status_of(error), json.loads(json.dumps(error_body(error))))
    assert (type(back), back.code, back.message, back.hint) == (kind, "some_code", words, hint)
    assert repr(back.detail) == repr(json.loads(json.dumps(detail)))


@given(st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), st.text(max_size=9) | st.integers(), max_size=3))
@examples(100)
def test_a_page_token_says_where_it_is(position: dict[str, Any]) -> None:
    assert page_position(page_token(**position)) == position


# -- settings -----------------------------------------------------------------------------------------------------
FIELDS = sorted({name for model in (Settings, Image, Machine, Root, Limits, Retention) for name in model.model_fields})
SCALARS = st.sampled_from(
    "4Gi 500m 2h -1 0 1.5 .inf -.inf .nan true null ~ '' a pytorch cpu-small 2001-99-99 2001-01-01 0x1F 1e400 !!int~a "
    "!!binary~x !!python/object:os.system~x *a &a~1 {} [] local one file:///x 12:30:45 = <<".split()
).map(lambda text: text.replace("~", " ")) | st.just("9" * 400)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(st.sampled_from(FIELDS) | SCALARS, inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=8,
)
PLAIN_YAML = st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), TREES, max_size=3).map(
    lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs.items())
)


@given(PLAIN_YAML | TREES | st.text(max_size=20))
@examples(400)
@example("retention: {age: 2001-99-99}")
@example("catalog: {machines: [{name: a, price_per_hour: .inf}]}")
@example("limits: {patience: " + "9" * 400 + "}")
@example("- 1")
@example("false")
@example("[" * 3000)
@example("a: &a [*a]")
@example("limits: &a {b: *a}")
@example("? {a: 1}\n: 2")
def test_any_yaml_is_settings_or_refused_with_its_line(text: str) -> None:
    with in_memory() as folder:
        path = folder / "atelier.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            found = load_settings(path)
        except RefusedInput as problem:
            refusal = problem
        else:
            without = {"catalog": {"machines": {"__all__": {"tolerations"}}}}
            json.dumps(found.model_dump(mode="json", exclude=without), allow_nan=False)  # the catalog tells of it
            return
    assert refusal.code == "bad_settings"
    assert str(path) in refusal.message


def test_settings_are_plain_yaml() -> None:
    """That most of what is generated above is."""
    assert yaml.safe_load("catalog: {machines: [{name: a, cpu: 500m}]}")["catalog"]["machines"][0]["cpu"] == "500m"


# -- what code in a run has written -------------------------------------------------------------------------------
POINT = st.builds(
    lambda step, value, name, time: (
        {"step": step, "values": {name: value}, "t": time},
        Point(name, step, value, time),
    ),
    st.none() | st.integers(0, 10**6),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["loss", "acc ü", "a/b"]),
    st.floats(0, 2e9),
)
TORN = st.binary(max_size=20).filter(lambda data: b"\n" not in data) | st.sampled_from(
    [
        b"[" * 5000,
        b'{"step": 1e999, "values": {"x": 1}, "t": 1}',
        b'{"step": true}',
        b'{"values": {"x": "nan"}, "step": null}',
        b'{"step": 1, "values": {"\\ud800": 1}, "t": 1}',
        b'{"step": 1, "values": {"x": [1]}, "t": 1}',
        b"null",
        b'"x"',
        b"\xff",
    ]
)


@given(st.lists(POINT | TORN, max_size=8))
@examples(200)
def test_whole_lines_of_metrics_are_read_whatever_lies_between(lines: list[Any]) -> None:
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line[0]).encode()) + b"\n" for line in lines)
    found = parse_points(data)
    wanted = [line[1] for line in lines if not isinstance(line, bytes)]
    assert [point for point in found if point.name in {"loss", "acc ü", "a/b"}] == wanted
    json.dumps([point.value for point in found], allow_nan=False)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=2) | TORN, max_size=6), st.data())
@examples(60)
def test_each_event_is_taken_once_however_it_comes(lines: list[Any], data: st.DataObject) -> None:
    whole = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    taken: list[Any] = []
    with in_memory() as folder:
        path = folder / "events.jsonl"
        reader = EventReader(path, taken.append, lambda words: None)
        start = 0
        while start < len(whole):
            end = data.draw(st.integers(start + 1, len(whole)))
            with path.open("ab") as file:
                file.write(whole[start:end])
            if data.draw(st.booleans()):  # another agent takes over
                reader = EventReader(path, taken.append, lambda words: None)
            reader.read()
            start = end
    mine = [line for line in lines if not isinstance(line, bytes)]
    others = {json.dumps(value) for line in lines if isinstance(line, bytes) for value in read_json(line)}
    assert [event for event in taken if json.dumps(event) not in others or event in mine] == mine


def read_json(line: bytes) -> list[Any]:
    try:
        return [json.loads(line)]
    except (ValueError, RecursionError):
        return []


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=2) | TORN, max_size=6), st.binary(max_size=9)
)
@examples(100)
def test_a_torn_file_of_lines_gives_its_whole_ones(lines: list[Any], rest: bytes) -> None:
    whole = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    with in_memory() as folder:
        (folder / "lines").write_bytes(whole + b"{" + rest)
        found = LineFile(folder / "lines").read()
    wanted = [value for line in (whole + b"{" + rest).split(b"\n") for value in read_json(line)]
    assert repr(found) == repr(wanted)


@given(st.binary(max_size=90) | st.text("0123456789abcdef \n./\0MANIFEST", max_size=90).map(str.encode))
@examples(150)
@example(b"0" * 64 + b"  a\0b\n")
@example(b"0" * 64 + b"  .\n")
@example(b"0" * 64 + b"  \n")
@example(b"0" * 64 + b"  " + b"x" * 5000)
def test_any_manifest_is_a_reason(content: bytes) -> None:
    with in_memory() as folder:
        (folder / MANIFEST).write_bytes(content)
        (folder / "a").write_bytes(b"x")
        assert damage(folder)


# -- curves -------------------------------------------------------------------------------------------------------
ENTRIES = st.lists(st.tuples(st.none() | st.integers(0, 9), st.none() | st.floats(-9, 9), st.floats(0, 9)), max_size=9)


@given(st.lists(ENTRIES, min_size=1, max_size=3))
@examples(200)
def test_a_curve_with_room_is_what_was_told_each_step_once(attempts: list[list[Any]]) -> None:
    """A naive one keeps all points; a later attempt takes back what earlier ones told of its steps and after them."""
    curve, earlier, last = Curve(), [], [None, None, 0.0]
    for n, entries in enumerate(attempts, start=1):
        curve.begin(n)
        own: list[Any] = []
        for entry in entries:
            curve.add([entry], 500)
            while (
                entry[0] is not None and earlier and (earlier[-1][0] if earlier[-1][0] is not None else -1) >= entry[0]
            ):
                earlier.pop()
            own.append(list(entry))
            last = list(entry)
        earlier += own
    told = curve.told(500)
    assert told["points"] == earlier
    assert told["count"] == len(earlier)
    assert list(told["last"].values()) == last


@given(st.integers(1, 9), st.lists(st.integers(1, 40), max_size=8))
@examples(100)
def test_a_thinned_curve_has_points_evenly_and_never_too_many(most: int, pieces: list[int]) -> None:
    curve, total = Curve(), 0
    for piece in pieces:
        curve.add([(step, float(step), 0.0) for step in range(total, total + piece)], most)
        total += piece
        told = curve.told(most)
        steps = [step for step, _, _ in told["points"]]
        assert len(steps) <= most
        assert steps == list(range(0, total, steps[1] if len(steps) > 1 else total))[: len(steps)]
        assert (told["count"], told["last"]["step"]) == (total, total - 1)
