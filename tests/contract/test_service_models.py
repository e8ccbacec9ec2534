"""A version of a model is seen once all its files are there, and a run makes no more of them than it may."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from atelier.errors import NotFound, RefusedInput
from atelier.quantities import utcnow
from atelier.records import ModelFile, ModelVersion
from atelier.service.handlers.context import Service
from atelier.service.models import UNFINISHED_AGE
from atelier.service.ownership import find_orphans
from atelier.storage.paths import model_key, upload_key
from atelier.testing.invariants import broken
from atelier.testing.samples import running
from tests.contract.writing_runs import dies_at_copy

FOLDER = model_key("ann#1", "digits", 1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def uploaded(service: Service, *contents: bytes) -> list[ModelFile]:
    """Files of a package that their owner has uploaded."""
    files = []
    for n, data in enumerate(contents):
        sha256 = hashlib.sha256(data).hexdigest()
        service.blobs.write(upload_key("ann#1", sha256), data)
        files.append(ModelFile(path=f"part-{n}.csv", size_bytes=len(data), sha256=sha256))
    return files


def publish(
    service: Service, files: list[ModelFile], *, name: str = "digits", run_id: str | None = None
) -> ModelVersion:
    return service.models.publish(owner="ann#1", project="ann#1", name=name, run_id=run_id, card={}, files=files)


def die_at(monkeypatch: pytest.MonkeyPatch, service: Service, files: list[ModelFile], *, copy: int) -> None:
    """Publish, and have the service die at one of the copies."""
    with dies_at_copy(copy, monkeypatch):
        publish(service, files)


@pytest.mark.parametrize("copy", [1, 2, 3])
def test_a_version_that_was_cut_off_is_not_seen_until_somebody_finishes_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: int
) -> None:
    files = uploaded(service, b"one", b"two", b"three")
    die_at(monkeypatch, service, files, copy=copy)
    assert service.store.models.names("ann#1") == []
    for version in (1, "latest"):
        with pytest.raises(NotFound):
            service.models.version("ann#1", "digits", version)
    with pytest.raises(NotFound):
        service.models.alias("ann#1", "digits", "production", 1)
    assert [*find_orphans(service.blobs, service.store.owning)] == []
    assert broken(tmp_path) == []
    stray = f"{FOLDER}/of-another-timeline.csv"
    service.blobs.write(stray, b"x")
    assert publish(service, files).version == 1
    assert [service.blobs.read(f"{FOLDER}/{file.path}") for file in files] == [b"one", b"two", b"three"]
    assert not service.blobs.exists(stray)
    assert publish(service, files).version == 1
    assert service.models.clear_unfinished() == 0


def test_a_version_that_nobody_can_finish_goes(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = publish(service, uploaded(service, b"seen"))
    die_at(monkeypatch, service, uploaded(service, b"one", b"two"), copy=2)
    moment = utcnow() + UNFINISHED_AGE - timedelta(minutes=5)
    monkeypatch.setattr("atelier.service.models.utcnow", lambda: moment)
    assert service.models.clear_unfinished() == 0
    moment += timedelta(minutes=10)
    assert service.models.clear_unfinished() == 1
    assert service.blobs.names(model_key("ann#1", "digits", 1).rpartition("/")[0]) == ["1"]
    assert service.store.models.versions("ann#1", "digits") == [seen]
    assert publish(service, uploaded(service, b"one", b"two")).version == 3, "a number was given again"
    assert broken(tmp_path) == []


def test_a_full_disk_leaves_no_version(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(service.blobs, "copy", fail)
        with pytest.raises(OSError, match="No space"):
            publish(service, uploaded(service, b"one"))
    assert service.store.models.unfinished(utcnow() + timedelta(seconds=9)) == []
    assert publish(service, uploaded(service, b"one")).version == 2


def test_the_same_model_published_by_several_at_once_is_one(service: Service) -> None:
    files = uploaded(service, b"one", b"two")
    with ThreadPoolExecutor(6) as pool:
        made = [pool.submit(publish, service, files) for _ in range(6)]
        assert {each.result(timeout=30).version for each in made} == {1}
    assert [service.blobs.read(f"{FOLDER}/{file.path}") for file in files] == [b"one", b"two"]


def test_a_run_makes_no_more_bytes_of_models_than_it_may(service: Service) -> None:
    service.models.limits = service.settings.limits.model_copy(update={"model_size": 10})
    run_id, other = running(service.store).run_id, running(service.store).run_id
    first = publish(service, uploaded(service, b"four", b"two"), run_id=run_id)
    for _ in range(2):  # the answer was lost, and it is told again
        assert publish(service, uploaded(service, b"four", b"two"), run_id=run_id) == first
    with pytest.raises(RefusedInput) as caught:
        publish(service, uploaded(service, b"eight"), name="words", run_id=run_id)
    assert caught.value.code == "too_large"
    assert caught.value.message == "The model has 5 B; of the 10 B of models that a run may make 3 B are left."
    assert [model.name for model in service.store.models.names("ann#1")] == ["digits"]
    assert publish(service, uploaded(service, b"eight"), name="words", run_id=other).version == 1
    assert publish(service, uploaded(service, b"eight", b"and more"), name="words").version == 2, "it is no run's"
