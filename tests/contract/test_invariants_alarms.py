"""The invariants give no false alarm: over a home that goes on, and at the bounds that the platform has."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import delete

from atelier.records import AttemptState
from atelier.service.attempts import FinishReport
from atelier.service.handlers.context import Service
from atelier.service.store.curves import MOST_NAMES
from atelier.service.store.schema import checkpoints, curves
from atelier.storage import FilesystemBlobs, RunPaths
from atelier.testing.invariants import MOST_CHARS, blobs_are_as_told, broken, points_count_once
from atelier.testing.snapshot import Snapshot
from tests.contract.writing_runs import begin, checkpoint


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_no_fault(service: Service, home: Path) -> None:
    agent = begin(service)
    checkpoint(service, agent, 1, b"c" * 100)
    looks = Snapshot.of(home)
    assert len(looks.tables["checkpoints"]) == 1
    assert isinstance(service.blobs, FilesystemBlobs)
    service.blobs.delete(RunPaths(agent.run_id).checkpoints)
    assert [words for words in blobs_are_as_told(looks) if "is not there" in words] != []
    with service.store.database.write() as connection:
        connection.execute(delete(checkpoints))
    assert list(blobs_are_as_told(looks)) == []
    looks.database.close()


def test_more_names_than_have_curves_are_no_fault_and_a_fault_among_them_is_told_in_short(
    service: Service, home: Path
) -> None:
    agent = begin(service)
    names = [f"metric-{n:04d}" for n in range(MOST_NAMES + 200)]
    line = json.dumps({"t": 1_750_000_000.0, "step": 1, "values": dict.fromkeys(names, 1.0)})
    service.attempts.append(agent, "metrics", 0, line.encode() + b"\n")
    service.attempts.finish(agent, FinishReport(state=AttemptState.SUCCEEDED))
    looks = Snapshot.of(home)
    assert len(looks.streams.curves(agent.run_id)) == MOST_NAMES
    assert list(points_count_once(looks)) == []
    with service.store.database.write() as connection:
        connection.execute(delete(curves).where(curves.c.name > names[10]))
    assert list(points_count_once(looks)) != []
    assert all(len(fault.words) <= MOST_CHARS for fault in broken(home))
    looks.database.close()
