"""What ``atelier doctor`` says of what a home keeps: database, clock, retention, and blobs that are nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.cli.checks import Check
from atelier.errors import AtelierError
from atelier.quantities import format_bytes, format_duration, utcnow
from atelier.settings import Retention, Settings

if TYPE_CHECKING:
    from atelier.service.store.database import Database

CLOCK_GRACE_S = 60.0
SHOWN = 5


def check_keeping(home: Path, settings: Settings) -> Iterator[Check]:
    """The database, and what it tells of; nothing where there is none yet, or no platform to look with."""
    try:
        from atelier.service.backups.places import Places
        from atelier.service.store.database import told_database_errors
        from atelier.service.store.looking import LookedAt
    except ImportError:
        return
    try:
        path = Places.of(home).database
        if not path.exists():
            yield Check("database", "ok", f"{path} is not there yet; the first start makes it")
            return
        with told_database_errors(f"sqlite:///{path}"):
            yield from _look(LookedAt(path), path, home, settings)
    except AtelierError as problem:
        is_elsewhere = problem.code == "database_elsewhere"
        yield Check("database", "ok" if is_elsewhere else "fail", problem.message, "" if is_elsewhere else problem.hint)


def _look(database: Database, path: Path, home: Path, settings: Settings) -> Iterator[Check]:
    from atelier.service.store.looking import schema_of

    try:
        now, wanted = schema_of(database)
        if now != wanted:
            text = f"{path} has schema {now}, and this version {wanted}: the next start brings it there"
            yield Check("database", "warn", text, f"Nothing; a copy is kept beside it, as {path.name}.before-{wanted}.")
            return
        yield _check_database(database, path)
        if database.damage is None:
            yield _check_clock(database, home)
            yield _check_retention(database, settings.retention)
            yield _check_orphans(database, home, settings)
    finally:
        database.close()


def _check_database(database: Database, path: Path) -> Check:
    database.look_through()
    if database.damage is not None:
        return Check("database", "fail", database.damage.message, database.damage.hint)
    return Check("database", "ok", f"{path}, {format_bytes(path.stat().st_size)}, no damage was found")


def _check_clock(database: Database, home: Path) -> Check:
    """Whether something is noted at a moment that has not come, or the service has seen the clock jump ahead."""
    from atelier.service.store.keeping import KeepingStore
    from atelier.service.timekeeping import noted, words

    ahead_s = (KeepingStore(database).newest_moment() - utcnow()).total_seconds()
    if ahead_s > CLOCK_GRACE_S:
        text = f"it went back: something is noted at a moment that comes in {format_duration(ahead_s)}"
        return Check("clock", "warn", text, "Set the computer's clock.")
    note = noted(home / "run" / "clock.json")
    if note is not None and note.hold_s:
        jump, left = words(note)
        text = f"{jump} Nothing is removed by its age for {left} of the service's time"
        return Check("clock", "warn", text, "Set the computer's clock if it is wrong.")
    return Check("clock", "ok", "nothing is noted at a moment that has not come")


def _check_retention(database: Database, rule: Retention) -> Check:
    """What ended runs take, and which of them go next."""
    from atelier.service.retention import due
    from atelier.service.store.keeping import KeepingStore

    keeping = KeepingStore(database)
    count, kept_bytes = keeping.total()
    detail = {"runs": count, "kept_bytes": kept_bytes}
    if rule.age is None and rule.size is None:
        text = f"{count} ended runs are kept; none goes by itself"
        return Check("retention", "ok", text, detail=detail)
    limits = [format_duration(rule.age)] if rule.age is not None else []
    by_owner = keeping.by_owner()
    used = f"{format_bytes(sum(by_owner.values()))} are used by {len(by_owner)} users"
    limits += [f"{format_bytes(rule.size)} together ({used})"] if rule.size else []
    may_go = keeping.removable(rule.keep)
    next_ones = [each.run.id for each in due(may_go, rule, kept_bytes=by_owner, now=utcnow())]
    soon = f"{len(next_ones)} go within the hour: {', '.join(next_ones[:SHOWN])}" if next_ones else "none is due"
    if not next_ones and rule.age is not None and may_go:
        left_s = rule.age - (utcnow() - may_go[0].ended_at).total_seconds()
        soon = f"next goes {may_go[0].id}, in {format_duration(left_s)}"
    text = f"{count} ended runs are kept for {' and '.join(limits)}, the newest {rule.keep} of each user longer; {soon}"
    return Check("retention", "ok", text, detail=detail | {"due": next_ones})


def _check_orphans(database: Database, home: Path, settings: Settings) -> Check:
    """Blobs that no row owns, and what could not be removed after runs."""
    from atelier.service.ownership import find_orphans
    from atelier.service.store.owning import OwningStore
    from atelier.service.sweeping import GRACE
    from atelier.storage import open_blobs

    blobs = open_blobs(settings.blobs or (home / "blobs").as_uri())
    found = list(find_orphans(blobs, OwningStore(database)))
    size_bytes = sum(orphan.size_bytes for orphan in found)
    trash = sorted(str(path) for path in (home / "run" / "trash").glob("*"))
    first = [orphan.key for orphan in found[:SHOWN]]
    detail = {"count": len(found), "size_bytes": size_bytes, "first": first, "trash": trash}
    if trash:
        return Check(
            "orphans", "warn", f"{len(trash)} folders of runs could not be removed", f"Remove {trash[0]} …", detail
        )
    if not found:
        return Check("orphans", "ok", "every blob belongs to a run or a model", detail=detail)
    text = f"{len(found)} blobs ({format_bytes(size_bytes)}) are nobody's: {', '.join(first)}"
    return Check(
        "orphans", "ok", f"{text}; the service removes them {GRACE.days} days after it has seen them", detail=detail
    )
