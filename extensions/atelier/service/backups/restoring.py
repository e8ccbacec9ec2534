"""Restores a backup into a home that has no database; what is in the way is moved aside, never removed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from atelier.errors import Conflict, RefusedInput
from atelier.local.durable import sync_folder
from atelier.quantities import utcnow
from atelier.records import AttemptState, Reason
from atelier.service.backups import places as at
from atelier.service.backups.checking import verify
from atelier.service.backups.living import refuse_living
from atelier.service.backups.objects import Manifest, Objects
from atelier.service.backups.places import Places
from atelier.service.store import Outcome, Store
from atelier.storage import BlobStore, FilesystemBlobs

STAGED = ".restoring"
UNFINISHED = ".restore-unfinished"
_LOCKS = ("service.lock", "up.lock")


def restore(folder: Path, home: Path, *, replace: bool, end_runs: bool = False) -> tuple[Manifest, Path | None]:
    """Verify a backup, and make a home of it; what it held, and where that lies which was in the way.

    Runs that lived when the backup was made are lost, and say so, or wait for their next attempt; those that waited
    wait again. Folders of attempts are in the way, too: their agents have told, and let go, what the backup hasn't. A
    restore that was cut off is done again, with ``replace``: until then no service begins.

    Parameters
    ----------
    folder : Path
        The backup.
    home : Path
        The ``ATELIER_HOME``, made when it is not there.
    replace : bool
        Whether what the home has is moved aside.
    end_runs : bool
        Whether runs that are at work in the home are ended.

    Raises
    ------
    RefusedInput
        ``not_a_backup``, ``damaged_backup``.
    Conflict
        ``home_in_use``: a service or platform holds the home. ``home_not_empty``: it has a database or blobs.
        ``runs_at_work``: agents live in it.
    """
    manifest, faults = verify(folder)
    if faults:
        words = f"{folder} is damaged: {'; '.join(faults[:3])}" + (f" … ({len(faults)} faults)" if faults[3:] else "")
        raise RefusedInput("damaged_backup", f"{words}.", hint="Nothing was changed. Name another backup.")
    objects = Objects(folder)
    with _nobody_else(home):
        settings = manifest.files.get(at.SETTINGS)
        places = Places.of(home, objects.path(settings.sha256) if settings else Path(os.devnull))
        blobs = _blobs_of(places, replace=replace)
        if not replace:
            _refuse_full(places, blobs)
        refuse_living(home, end=end_runs)
        _lay_out(manifest, objects, home / STAGED, blobs)
        _end_what_lived(home, manifest.made_at)
        aside = home / f"before-restore-{utcnow():%Y%m%dT%H%M%S}"
        _put_in_place(places, aside, blobs, replace=replace)
    return manifest, aside if aside.exists() else None


def refuse_unfinished(home: Path) -> None:
    """Refuse (``restore_unfinished``) a home in which a restore was cut off while it put things in their places."""
    if (home / UNFINISHED).exists():
        raise Conflict(
            "restore_unfinished",
            f"A restore of {home} was cut off: what is there is half of a backup.",
            hint="Do it again: 'atelier restore FOLDER --replace'.",
        )


@contextlib.contextmanager
def _nobody_else(home: Path) -> Iterator[None]:
    """Hold the locks of service and platform, so that none starts over what is half there."""
    (home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for name in _LOCKS:
            lock = stack.enter_context((home / "run" / name).open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                hint = _how_to_stop(home, name)
                raise Conflict("home_in_use", f"A service or the platform works over {home}.", hint=hint) from None
        yield


def _how_to_stop(home: Path, lock: str) -> str:
    """What ends who holds a lock of a home: the platform, or a service that a command has started."""
    try:
        note = home / "run" / ("service.json" if lock == "service.lock" else lock)
        pid = int(json.loads(note.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return "Stop it first: Ctrl-C ends the platform; a service by itself ends after ten idle minutes."
    runs_go_on = "; its runs go on" if lock == "service.lock" else ""
    return f"Stop it first: it is process {pid}, and 'kill {pid}' ends it{runs_go_on}."


def _blobs_of(places: Places, *, replace: bool) -> BlobStore | None:
    """The blob store where the settings put it elsewhere than into the home; None for the home's own."""
    if places.blobs_url == (places.home / at.BLOBS).as_uri():
        return None
    blobs = places.open_blobs()
    if not replace and (blobs.names("runs") or blobs.names("models")):
        raise _not_empty(places.blobs_url)
    return blobs


def _refuse_full(places: Places, blobs: BlobStore | None) -> None:
    kept = places.home / at.BLOBS
    if places.database.exists():
        raise _not_empty(places.database)
    if blobs is None and kept.is_dir():
        own = FilesystemBlobs(kept)
        if own.names("runs") or own.names("models"):
            raise _not_empty(kept)


def _not_empty(place: object) -> Conflict:
    return Conflict(
        "home_not_empty",
        f"There are runs or models at {place} already.",
        hint="Give another ATELIER_HOME; or --replace moves what is there aside.",
    )


def _lay_out(manifest: Manifest, objects: Objects, staged: Path, blobs: BlobStore | None) -> None:
    """Make all files beside their places; what is cut off here has changed nothing."""
    shutil.rmtree(staged, ignore_errors=True)
    (staged / at.BLOBS).mkdir(mode=0o700, parents=True)
    if blobs is not None:
        blobs.delete(STAGED)
    for path, content in manifest.files.items():
        source, key = objects.path(content.sha256), path.removeprefix(f"{at.BLOBS}/")
        if key == path:
            _copy(source, staged / path)
        elif blobs is not None:
            blobs.put_file(f"{STAGED}/{key}", source)
        else:
            _link(source, staged / path)
    os.sync()


def _end_what_lived(home: Path, made_at: str) -> None:
    """End the attempts that lived at the time of the backup."""
    moment = made_at[:16].replace("T", " ")
    words = f"It was at work when the backup of {moment} UTC was made, from which its record was restored; "
    words += "how it went on is not known here."
    store = Store(f"sqlite:///{home / STAGED / at.DATABASE}")
    try:
        for row in store.runs.live_attempts():
            store.runs.finish(row.id, row.attempt_n, Outcome(AttemptState.LOST, Reason.AGENT_LOST, words))
    finally:
        store.close()


def _put_in_place(places: Places, aside: Path, blobs: BlobStore | None, *, replace: bool) -> None:
    """Move what was laid out to its place; while it is noted that this goes on no service begins."""
    home, staged = places.home, places.home / STAGED
    (home / UNFINISHED).touch(mode=0o600)
    sync_folder(home)
    if blobs is not None and _exchange(blobs, aside.name):
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        (aside / "blobs.txt").write_text(f"The blobs lie in {places.blobs_url.rstrip('/')}/{aside.name}.\n")
    _move_aside(home / "run" / "attempts", aside, home)
    parts = {name: home / name for name in (at.BLOBS, at.SECRETS, *at.PLAIN_FILES, at.HUB_DATABASE)}
    for name, target in {**parts, at.DATABASE: places.database}.items():
        if replace or (staged / name).exists():
            _move_aside(target, aside, home)
        if (staged / name).exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(staged / name, target)
    shutil.rmtree(staged)
    os.sync()
    (home / UNFINISHED).unlink()


def _exchange(blobs: BlobStore, aside: str) -> bool:
    """Copy aside what another store than the home's own has, then what was laid out to its place; was there something?

    What it has may be newer than the backup, and nothing of it may be taken for what the backup's runs have left.
    """
    old = [key for kind in ("runs", "models") for key in blobs.keys(kind)]
    for key in old:
        blobs.copy(key, f"{aside}/{key}")
    for kind in ("runs", "models"):
        blobs.delete(kind)
    for key in blobs.keys(STAGED):
        blobs.copy(key, key.removeprefix(f"{STAGED}/"))
    blobs.delete(STAGED)
    return bool(old)


def _move_aside(target: Path, aside: Path, home: Path) -> None:
    """Keep what is in a place, with the logs of a database."""
    for old in (target, *(target.with_name(target.name + end) for end in ("-wal", "-shm", "-journal"))):
        if old.exists():
            kept = aside / (old.relative_to(home) if old.is_relative_to(home) else old.name)
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(old, kept)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def _link(source: Path, target: Path) -> None:
    """The file itself where it can be shared: a blob is replaced, never written into."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or too many links
        _copy(source, target)
