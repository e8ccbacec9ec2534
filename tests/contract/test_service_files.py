"""What agents send is taken whole, once, and from live attempts only: over a folder and over an object store."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import Request

from atelier.agent.place import store as send
from atelier.errors import Conflict, RefusedInput, Unreachable
from atelier.records import AttemptState, ModelFile, Reason
from atelier.service.attempts import AgentCaller, FileReport, FinishReport, artifact_key
from atelier.service.backends import Key
from atelier.service.callers import Caller
from atelier.service.fence import Fence
from atelier.service.handlers.context import Service
from atelier.service.handlers.runs import read_artifact
from atelier.service.incoming import Incoming
from atelier.service.ownership import Orphan, find_orphans
from atelier.service.store import Outcome
from atelier.storage import BlobStore, FilesystemBlobs, RunPaths
from atelier.storage.objects import ObjectBlobs
from atelier.storage.paths import upload_key
from atelier.testing.samples import claimed, due_now, running

RUN = "r-aaaaaaaaaa"
KEY = f"{RunPaths(RUN).checkpoint(1, 7, copy=1)}/a/model.pt"
LOST = Outcome(AttemptState.LOST, Reason.AGENT_LOST)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def report(path: str, data: bytes, kind: str = "saved") -> FileReport:
    fields = {"path": path, "size_bytes": len(data), "sha256": digest(data), "kind": kind}
    return FileReport.model_validate(fields)


# -- what is sent, and taken --------------------------------------------------------------------------------------
@pytest.fixture(params=["folder", "objects"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FilesystemBlobs(tmp_path / "blobs") if request.param == "folder" else ObjectBlobs(f"memory://{uuid.uuid4()}")


def sent(blobs: BlobStore, data: bytes) -> Incoming:
    """An attempt's folder in which something was sent for the key."""
    incoming = Incoming(blobs)
    incoming.url(RUN, 1, KEY)
    name = hashlib.sha256(KEY.encode()).hexdigest()[:32]
    blobs.write(f"{RunPaths(RUN).incoming(1)}/{name}", data)
    assert incoming.has(RUN, 1, KEY)
    return incoming


def test_what_is_sent_is_taken_once(blobs: BlobStore) -> None:
    incoming = sent(blobs, b"whole")
    for _ in range(2):  # the answer was lost, and the agent tells again
        incoming.take(RUN, 1, KEY, size_bytes=5, sha256=digest(b"whole"))
        incoming.done(RUN, 1, KEY)
        assert [*blobs.keys(RunPaths(RUN).root)] == [KEY]
    assert blobs.read(KEY) == b"whole"


def test_what_is_torn_is_not_taken(blobs: BlobStore) -> None:
    incoming = sent(blobs, b"who")
    blobs.write(KEY, b"other")
    with pytest.raises(RefusedInput) as caught:
        incoming.take(RUN, 1, KEY, size_bytes=5, sha256=digest(b"whole"))
    assert caught.value.code == "torn_upload"
    assert blobs.read(KEY) == b"other"


def test_what_is_sent_is_read_before_it_is_taken(blobs: BlobStore) -> None:
    """Of the right size and another content: it changed between its hash and its upload."""
    incoming = sent(blobs, b"wrong")
    with pytest.raises(RefusedInput) as caught:
        incoming.take(RUN, 1, KEY, size_bytes=5, sha256=digest(b"whole"))
    assert caught.value.code == "torn_upload"
    assert not blobs.exists(KEY)
    assert not incoming.has(RUN, 1, KEY)


def test_what_nobody_took_goes_with_the_attempt(blobs: BlobStore) -> None:
    incoming = sent(blobs, b"whole")
    for _ in range(2):
        incoming.close(RUN, 1)
    assert [*blobs.keys(RunPaths(RUN).root)] == []


def test_a_url_of_a_closed_attempt_leads_nowhere(tmp_path: Path) -> None:
    blobs = FilesystemBlobs(tmp_path / "blobs")
    incoming = Incoming(blobs)
    url = incoming.url(RUN, 1, KEY)
    incoming.close(RUN, 1)
    (tmp_path / "file").write_bytes(b"late")
    with pytest.raises(Unreachable):
        send(tmp_path / "file", url)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


# -- the service's side -------------------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def agent(service: Service) -> AgentCaller:
    claim = running(service.store, retries=3)
    return AgentCaller(claim.run_id, claim.n, "ann#1", "ann#1", 1.0, 2**30)


def put(service: Service, url: str | None, data: bytes, folder: Path) -> None:
    """Send bytes as an agent does."""
    assert url is not None
    source = folder / uuid.uuid4().hex
    source.write_bytes(data)
    send(source, url)


def test_a_poisoned_upload_reaches_no_model(service: Service, tmp_path: Path) -> None:
    """A file that changed between its hash and its upload has the hash of another content."""
    caller, data = agent(service), b'{"a": 1}'
    file = ModelFile(path="model.json", size_bytes=len(data), sha256=digest(data))
    put(service, service.attempts.place_upload(caller, file), b'{"a": 2}', tmp_path)
    with pytest.raises(RefusedInput) as caught:
        service.attempts.publish(caller, "digits", {}, [file])
    assert caught.value.code == "torn_upload"
    assert not service.blobs.exists(upload_key(caller.owner, file.sha256))
    assert service.store.models.names(caller.owner) == []
    put(service, service.attempts.place_upload(caller, file), data, tmp_path)
    version = service.attempts.publish(caller, "digits", {}, [file])
    assert service.blobs.read(service.models.file_key(version, "model.json")) == data
    assert service.attempts.publish(caller, "digits", {}, [file]).version == version.version


def test_an_old_url_overwrites_no_upload(service: Service, tmp_path: Path) -> None:
    """Two attempts send the same content; the second one's is checked, and the first one's comes too late."""
    old, data = agent(service), b'{"a": 1}'
    file = ModelFile(path="model.json", size_bytes=len(data), sha256=digest(data))
    url = service.attempts.place_upload(old, file)
    service.attempts.end(Key(old.run_id, old.n), LOST)
    due_now(service.store, old.run_id)
    claim = claimed(service.store)
    new = AgentCaller(claim.run_id, claim.n, "ann#1", "ann#1", 1.0, 2**30)
    put(service, service.attempts.place_upload(new, file), data, tmp_path)
    version = service.attempts.publish(new, "digits", {}, [file])
    with pytest.raises(Unreachable):
        put(service, url, b'{"a": 2}', tmp_path)
    assert service.blobs.read(upload_key(new.owner, file.sha256)) == data
    assert service.blobs.read(service.models.file_key(version, "model.json")) == data


def keep(service: Service, caller: AgentCaller, path: str, data: bytes, folder: Path) -> str:
    """Leave an artifact as an agent does; where its bytes lie."""
    file = report(path, data)
    put(service, service.attempts.place(caller, file), data, folder)
    service.attempts.keep(caller, file)
    return artifact_key(caller.run_id, caller.n, file)


def test_an_artifact_is_read_before_it_is_taken(service: Service, tmp_path: Path) -> None:
    """As large as told, and something else: it changed between its hash and its upload."""
    caller, file = agent(service), report("a.bin", b"told")
    put(service, service.attempts.place(caller, file), b"sent", tmp_path)
    with pytest.raises(RefusedInput) as caught:
        service.attempts.keep(caller, file)
    assert (caught.value.code, caught.value.message) == ("torn_upload", "a.bin was not stored whole.")
    assert service.store.artifacts.of_run(caller.run_id) == []
    assert [*service.blobs.keys(RunPaths(caller.run_id).artifacts(1))] == []


def test_a_checkpoint_is_read_once_before_it_is_taken(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits in vain for an answer, since much is read, tells again, and must not wait as long again."""
    caller, file = agent(service), report("state.pt", b"told")
    put(service, service.attempts.place_checkpoint(caller, 1, "state.pt", copy=1), b"sent", tmp_path)
    with pytest.raises(RefusedInput, match=r"state\.pt was not stored whole"):
        service.attempts.keep_checkpoint(caller, 1, [file], copy=1)
    assert service.store.artifacts.checkpoints(caller.run_id) == []
    put(service, service.attempts.place_checkpoint(caller, 1, "state.pt", copy=1), b"told", tmp_path)
    read, sha256 = [], Incoming.sha256
    monkeypatch.setattr(Incoming, "sha256", lambda self, key: read.append(key) or sha256(self, key))
    for _ in range(3):
        service.attempts.keep_checkpoint(caller, 1, [file], copy=1)
    assert len(read) == 1
    assert [one.step for one in service.store.artifacts.checkpoints(caller.run_id)] == [1]


def test_a_row_never_leads_to_other_bytes(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service dies before an artifact's new row, and after it."""
    caller = agent(service)
    old = keep(service, caller, "latest.bin", b"first", tmp_path)
    new = report("latest.bin", b"second, and longer")
    put(service, service.attempts.place(caller, new), b"second, and longer", tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for place, read, told in (
        (service.store.artifacts, "add", b"first"),
        (service.blobs, "delete", b"second, and longer"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, read, die)
            with pytest.raises(KeyboardInterrupt):
                service.attempts.keep(caller, new)
        row = service.store.artifacts.get(caller.run_id, "latest.bin")
        assert service.blobs.read(artifact_key(caller.run_id, 1, row)) == told
        assert row.sha256 == digest(told)
    service.attempts.keep(caller, new)
    service.attempts.end(Key(caller.run_id, 1), LOST)
    assert [orphan.key for orphan in find_orphans(service.blobs, service.store.owning)] == [old]


def test_the_bytes_before_go_and_those_of_others_stay(service: Service, tmp_path: Path) -> None:
    caller = agent(service)
    for path in ("one.bin", "two.bin"):
        keep(service, caller, path, b"same", tmp_path)
    first = keep(service, caller, "one.bin", b"other", tmp_path)
    second = RunPaths(caller.run_id).artifact(1, "two.bin", sha256=digest(b"same"))
    folder = RunPaths(caller.run_id).artifacts(1)
    assert [*service.blobs.keys(folder)] == sorted([first, second])
    second = keep(service, caller, "two.bin", b"third", tmp_path)
    assert [*service.blobs.keys(folder)] == sorted([first, second])
    assert service.blobs.names(folder) == sorted([digest(b"other"), digest(b"third")]), "empty folders are left"


def test_an_artifact_that_is_left_anew_while_it_is_asked_for_is_sent_as_it_is_now(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, get = agent(service), service.store.artifacts.get
    keep(service, caller, "latest.bin", b"first", tmp_path)
    before = [get(caller.run_id, "latest.bin")]
    keep(service, caller, "latest.bin", b"second", tmp_path)
    monkeypatch.setattr(service.store.artifacts, "get", lambda *of: before.pop() if before else get(*of))
    request = Request({"type": "http", "headers": []})
    answer = read_artifact(caller.run_id, "latest.bin", request, service, Caller("ann", "ann#1"))
    keep(service, caller, "latest.bin", b"third", tmp_path)

    async def body() -> bytes:
        return b"".join([bytes(part) async for part in answer.body_iterator])  # type: ignore[arg-type]

    assert asyncio.run(body()) == b"second"


def test_the_notebook_is_that_of_the_newest_attempt(service: Service, tmp_path: Path) -> None:
    old = agent(service)
    file = report("train.ipynb", b"of 1", "notebook")
    put(service, service.attempts.place(old, file), b"of 1", tmp_path)
    service.attempts.keep(old, file)
    late = report("train.ipynb", b"late", "notebook")
    url = service.attempts.place(old, late)
    service.attempts.end(Key(old.run_id, old.n), LOST)
    due_now(service.store, old.run_id)
    claim = claimed(service.store)
    new = AgentCaller(claim.run_id, claim.n, "ann#1", "ann#1", 1.0, 2**30)
    newest = report("train.ipynb", b"of 2", "notebook")
    put(service, service.attempts.place(new, newest), b"of 2", tmp_path)
    service.attempts.keep(new, newest)
    with pytest.raises(Unreachable):
        put(service, url, b"late", tmp_path)
    with pytest.raises(Conflict):
        service.attempts.keep(old, late)
    assert service.blobs.read(RunPaths(new.run_id).notebook) == b"of 2"
    assert service.blobs.read(artifact_key(new.run_id, 2, newest)) == b"of 2"
    assert service.store.artifacts.get(new.run_id, "train.ipynb").attempt == new.n


def test_an_artifact_is_not_larger_than_was_asked_for(service: Service) -> None:
    """A place was given for one byte, and more is told of than all may have."""
    caller, asked = agent(service), report("x.bin", b"1")
    assert service.attempts.place(caller, asked)
    told = asked.model_copy(update={"size_bytes": service.settings.limits.artifact_size + 1})
    with pytest.raises(RefusedInput) as caught:
        service.attempts.keep(caller, told)
    assert caught.value.code == "too_large"
    assert service.store.artifacts.of_run(caller.run_id) == []


def test_a_checkpoint_is_not_larger_than_one_may_be(service: Service, tmp_path: Path) -> None:
    caller = agent(service)
    service.attempts.limits = service.settings.limits.model_copy(update={"checkpoint_size": 10})
    with pytest.raises(RefusedInput) as caught:
        service.attempts.place_checkpoint(caller, 5, "state.pt", copy=1, size_bytes=11)
    assert (caught.value.code, caught.value.message) == (
        "too_large",
        "The checkpoint of step 5 has 11 B; one may have 10 B.",
    )
    for size in (5, 6):
        url = service.attempts.place_checkpoint(caller, size, "b.pt", copy=1)  # the size comes at the end
        put(service, url, b"x" * size, tmp_path)
        url = service.attempts.place_checkpoint(caller, size, "a.pt", copy=1)
        put(service, url, b"x" * 5, tmp_path)
        files = [report("a.pt", b"x" * 5), report("b.pt", b"x" * size)]
        if size == 5:
            service.attempts.keep_checkpoint(caller, size, files, copy=1)
            continue
        with pytest.raises(RefusedInput, match="has 11 B"):
            service.attempts.keep_checkpoint(caller, size, files, copy=1)
    assert [one.step for one in service.store.artifacts.checkpoints(caller.run_id)] == [5]


def test_an_end_leaves_nothing_that_was_sent(service: Service, tmp_path: Path) -> None:
    caller, kept, torn = agent(service), report("kept.txt", b"kept"), report("lost.txt", b"never told of")
    for file, data in ((kept, b"kept"), (torn, b"never told of")):
        put(service, service.attempts.place(caller, file), data, tmp_path)
    service.attempts.keep(caller, kept)
    run = service.attempts.finish(caller, FinishReport(state=AttemptState.SUCCEEDED))
    left = {key.rpartition("/")[2] for key in service.blobs.keys(RunPaths(run.id).root)}
    assert left == {"run.json", "log.txt", "metrics.jsonl", "result.json", "kept.txt"}
    assert service.blobs.read(artifact_key(run.id, 1, kept)) == b"kept"


def test_what_comes_too_late_is_nobodys(service: Service) -> None:
    """In an object store an address works on for a while; what was sent to it is found, and goes as nobody's."""
    caller = agent(service)
    late = f"{RunPaths(caller.run_id).incoming(1)}/0123"
    service.blobs.write(late, b"sent")
    assert [*find_orphans(service.blobs, service.store.owning)] == []
    service.attempts.end(Key(caller.run_id, caller.n), LOST)
    assert not service.blobs.exists(late)
    service.blobs.write(late, b"late")
    assert [*find_orphans(service.blobs, service.store.owning)] == [Orphan(late, 4)]


# -- the fence ----------------------------------------------------------------------------------------------------
def test_no_attempt_ends_while_something_of_it_is_written(service: Service) -> None:
    caller = agent(service)
    writing, may_go_on = threading.Event(), threading.Event()
    append = service.streams.append

    def slow(*of: object) -> object:
        writing.set()
        assert may_go_on.wait(20)
        return append(*of)  # type: ignore[arg-type]

    service.streams.append = slow  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(2) as pool:
        appended = pool.submit(service.attempts.append, caller, "log", 0, b"last words")
        assert writing.wait(20)
        ended = pool.submit(service.attempts.end, Key(caller.run_id, caller.n), LOST)
        time.sleep(0.2)
        assert not ended.done(), "it ended while its log was being written"
        may_go_on.set()
        assert appended.result(20) == 10
        assert ended.result(20).attempts[0].log_size_bytes == 10
    assert service.blobs.read(RunPaths(caller.run_id).whole(1, "log")) == b"last words"
    with pytest.raises(Conflict) as caught:
        service.attempts.append(caller, "log", 10, b"and more")
    assert caught.value.code == "stale_attempt"
    assert not [key for key in service.blobs.keys(RunPaths(caller.run_id).root) if "/log/" in key]


def test_a_fence_parts_one_run_only() -> None:
    fence, inside = Fence(), threading.Event()

    def hold(run_id: str) -> bool:
        with fence.hold(run_id), fence.hold(run_id):  # who holds it may take it again
            return inside.is_set()

    with ThreadPoolExecutor(2) as pool:
        with fence.hold("r-1"):
            waiting = pool.submit(hold, "r-1")
            assert pool.submit(hold, "r-2").result(20) is False
            inside.set()
        assert waiting.result(20), "it went in while another one was there"
