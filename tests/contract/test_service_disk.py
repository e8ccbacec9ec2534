"""What the service keeps on the disk is freed: removed runs, what a crash left of them, uploads that nobody used."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from atelier.bundle.snapshot import plan_bundle, write_bundle
from atelier.records import Run, RunSpec, RunState, Source
from atelier.service.app import create_app
from atelier.service.callers import Caller
from atelier.service.handlers.context import MOST_PREVIEWS, Service
from atelier.service.housekeeping import UPLOAD_AGE_S, is_uploaded
from atelier.service.serving import Plan, _Idle, assemble
from atelier.storage import FilesystemBlobs, RunPaths
from atelier.storage.paths import upload_key
from atelier.testing.samples import finished, new_run
from atelier.wire import API
from atelier.works.finding import find_work
from tests.service_driver import SETTINGS

ANN, BOB = (Caller(name, f"{name}#1", is_local=True) for name in ("ann", "bob"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The parts of a service, none of which goes by itself."""
    home = tmp_path / "home"
    home.mkdir()
    data = tmp_path / "data"
    data.mkdir()
    (data / "words.txt").write_text("words\n")
    (home / "atelier.yaml").write_text(SETTINGS + f"  roots: [{{name: words, url: {data.as_uri()}}}]\n")
    made = assemble(Plan(home), home / "service.sock", "token", _Idle(time.monotonic()))
    yield made
    made.store.close()


def submit(service: Service, folder: Path, caller: Caller = ANN) -> Run:
    """A queued run of the script ``train.py`` in a folder."""
    plan = plan_bundle(find_work(str(folder / "train.py"), folder), limit_bytes=100 << 20)
    digest = write_bundle(plan, folder.parent / "bundle")
    service.blobs.put_file(upload_key(caller.owner, digest), folder.parent / "bundle")
    return service.runs.submit(caller, RunSpec(work=plan.work, bundle=digest, machine="tiny"), Source(), None)[0]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "train.py").write_text("print('done')\n")
    return folder


def age(service: Service, key: str, by_s: float) -> None:
    """Let a blob be older."""
    assert isinstance(service.blobs, FilesystemBlobs)
    then = time.time() - by_s
    os.utime(service.blobs.root / key, (then, then))


# -- removal ------------------------------------------------------------------------------------------------------
def test_the_last_run_of_a_bundle_takes_its_upload_with_it(service: Service, code: Path) -> None:
    first, second, other = submit(service, code), submit(service, code), submit(service, code, BOB)
    upload = upload_key(ANN.owner, first.spec.bundle)
    for run in (first, second):
        service.runs.cancel(run.id, now=True)
    service.runs.remove(first)
    assert list(service.blobs.keys(RunPaths(first.id).root)) == []
    assert service.blobs.exists(upload)
    assert service.blobs.exists(RunPaths(second.id).bundle)
    service.runs.remove(second)
    assert list(service.blobs.keys("uploads")) == [upload_key(BOB.owner, other.spec.bundle)]
    assert service.blobs.exists(RunPaths(other.id).bundle)


def test_what_a_crash_left_of_a_removed_run_goes_at_the_next_start(service: Service, code: Path) -> None:
    gone, kept = submit(service, code), submit(service, code)
    service.runs.cancel(gone.id, now=True)
    service.store.runs.remove(gone.id)
    assert service.blobs.exists(RunPaths(gone.id).bundle)
    service.house.clear_removed()
    assert list(service.blobs.keys("runs")) == [RunPaths(kept.id).bundle]
    service.blobs.write(RunPaths(gone.id).record, b"{}")
    service.house.clear_removed()
    assert service.blobs.exists(RunPaths(gone.id).record), "each start looks after every run that was ever removed"


def test_what_was_written_while_a_run_was_removed_goes_too(service: Service, code: Path) -> None:
    gone = submit(service, code)
    service.runs.cancel(gone.id, now=True)
    service.runs.remove(gone)
    service.blobs.write(RunPaths(gone.id).record, b"{}")
    service.house.clear_removed()
    assert list(service.blobs.keys("runs")) == []


# -- uploads ------------------------------------------------------------------------------------------------------
def test_an_upload_of_yesterday_goes_and_runs_go_on(service: Service, code: Path) -> None:
    run = submit(service, code)
    upload = upload_key(ANN.owner, run.spec.bundle)
    assert service.house.expire_uploads() == 0
    age(service, upload, UPLOAD_AGE_S - 1800)
    assert not is_uploaded(service.blobs, upload), "it might go before it is used"
    assert service.house.expire_uploads() == 0
    age(service, upload, UPLOAD_AGE_S + 60)
    assert service.house.expire_uploads() == 1
    assert service.blobs.exists(RunPaths(run.id).bundle)
    assert is_uploaded(service.blobs, upload_key(ANN.owner, submit(service, code).spec.bundle))


def test_a_submit_that_was_cut_in_two_gets_its_bundle_first(service: Service, code: Path) -> None:
    new = new_run(ANN.owner)
    run = service.store.runs.submit(new)[0]
    upload = upload_key(ANN.owner, new.spec.bundle)
    service.blobs.write(upload, b"code")
    age(service, upload, 3 * UPLOAD_AGE_S)
    assert service.house.expire_uploads() == 1
    assert service.blobs.read(RunPaths(run.id).bundle) == b"code"
    assert service.store.runs.get(run.id).state is RunState.QUEUED


def test_a_large_bundle_is_looked_into_in_pieces(service: Service, code: Path) -> None:
    (code / "weights.bin").write_bytes(os.urandom(32 << 20))
    plan = plan_bundle(find_work(str(code / "train.py"), code), limit_bytes=100 << 20)
    digest = write_bundle(plan, code.parent / "bundle")
    service.blobs.put_file(upload_key(ANN.owner, digest), code.parent / "bundle")
    spec = RunSpec(work=plan.work, bundle=digest, machine="tiny")
    tracemalloc.start()
    try:
        service.runs.submit(ANN, spec, Source(), None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20, f"{peak / 2**20:.1f} MiB were held at once"
    assert list(service.scratch.iterdir()) == []


# -- threads ------------------------------------------------------------------------------------------------------
def test_many_removals_that_wait_for_a_submit_hold_up_nothing_else(service: Service) -> None:
    caller = asyncio.run(service.callers.caller("token token"))
    ids = [finished(service.store, caller.owner) for _ in range(60)]

    async def ask() -> None:
        transport = httpx.ASGITransport(create_app(service))
        headers = {"Authorization": "token token"}
        async with httpx.AsyncClient(transport=transport, base_url="http://atelier", headers=headers) as http:
            with service.runs._guard(caller.owner):  # as a submit does while it looks into its bundle
                removals = [asyncio.create_task(http.delete(f"{API}/runs/{run_id}")) for run_id in ids]
                await asyncio.wait(removals, timeout=1)
                looking = asyncio.create_task(http.get(f"{API}/runs"))
                done, _ = await asyncio.wait([looking], timeout=10)
            assert {answer.status_code for answer in await asyncio.gather(*removals)} == {204}
            assert done, "the list of runs waited for the removals"
            assert (await looking).status_code == 200

    asyncio.run(ask())


# -- previews -----------------------------------------------------------------------------------------------------
def test_previews_are_few_at_once_and_within_a_budget(service: Service) -> None:
    async def ask() -> None:
        transport = httpx.ASGITransport(create_app(service))
        headers = {"Authorization": "token token"}
        async with httpx.AsyncClient(transport=transport, base_url="http://atelier", headers=headers) as http:

            async def look() -> httpx.Response:
                params = {"path": "words.txt", "budget_bytes": str(10**15)}
                return await http.get(f"{API}/roots/datasets/words/preview", params=params)

            for _ in range(MOST_PREVIEWS):
                await service.previews.acquire()
            waiting = asyncio.create_task(look())
            done, _ = await asyncio.wait([waiting], timeout=1)
            assert not done, "a fifth one did not wait"
            service.previews.release()
            answer = await asyncio.wait_for(waiting, 20)
            assert answer.status_code == 200, answer.text
            assert answer.json()["plan"]["budget_bytes"] == 16 * service.settings.limits.preview_bytes

    asyncio.run(ask())
