"""The spool that code in a run appends to and its agent ships: whole lines, durable folders, manifests.

Layout: ``metrics.jsonl``, ``events.jsonl``, ``artifacts/<path>``, ``checkpoints/step-<n>``, ``models/<name>``, and
``control.json``, which the agent writes. Names that begin with ``.tmp-`` are not finished. Standard library only.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from atelier.crash_points import crash_point
from atelier.errors import RefusedInput
from atelier.local.plain import read_small
from atelier.naming import check_kept, check_listed

MOST_MANIFEST_BYTES = 256 << 20
MANIFEST = "MANIFEST.sha256"
"""In every checkpoint: one line ``<sha256>  <path>`` a file, as ``sha256sum`` writes and checks it."""

_CHUNK_BYTES = 1 << 20
_DIGEST = re.compile("[0-9a-f]{64}")


class Control:
    """What the agent wants of the code, read again only when the file has changed.

    The first look leaves the file ``polls-stop``: code that asks is given its time to end by itself.
    """

    def __init__(self, spool: Path) -> None:
        self._path, self._mark = spool / "control.json", spool / "polls-stop"
        self._seen: object = None
        self._is_marked = False
        self.known: str | None = None

    def order(self) -> str | None:
        """``cancel``, ``preempt`` or ``deadline``; None while nothing is wanted.

        Raises
        ------
        OSError, ValueError
            The file is there and can't be read; what it last said is `known`.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            self._leave_mark()
            status = os.stat(self._path)
            now = (status.st_mtime_ns, status.st_ino, status.st_size)
            if self._seen != now:
                said = json.loads(self._path.read_bytes())
                self._seen, self.known = now, said.get("stop") if isinstance(said, dict) else None
        return self.known

    def _leave_mark(self) -> None:
        if not self._is_marked and self._mark.parent.is_dir():
            self._is_marked = True
            self._mark.touch()


def copy_file(source: Path, target: Path) -> str:
    """Copy a regular file to a new place, return its sha256; it is on the disk when this returns."""
    import hashlib

    crash_point("recorder.copy.before")
    digest = hashlib.sha256()
    with open(source, "rb") as reading, open(target, "xb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    crash_point("recorder.copy.after")
    return digest.hexdigest()


def claim(spool: Path, name: str) -> None:
    """Note that an artifact is called so, for all processes of the run: no file may be a folder of another.

    Raises
    ------
    RefusedInput
        ``path_taken``.
    OSError
        The disk is full or broken.
    """
    mark = spool / "saved" / name
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        raise RefusedInput(
            "path_taken",
            f"{name[:200]!r} can't be kept beside what was saved before: one would be a folder of the other.",
            hint="Give one of them another name.",
        ) from problem


def keep_file(source: Path, spool: Path, name: str, tell: Callable[[Path], object]) -> None:
    """Copy a file to ``artifacts/<name>``, and tell of the copy; where either fails, an earlier one is as it was."""
    spool.mkdir(parents=True, exist_ok=True)
    unfinished = spool / f".tmp-{os.getpid()}-{os.urandom(6).hex()}"
    earlier, target = unfinished.with_name(f"{unfinished.name}-earlier"), spool / "artifacts" / name
    try:
        copy_file(source, unfinished)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # there is none, or the disk knows no second names
            os.link(target, earlier)
        os.replace(unfinished, target)
        tell(target)
    except OSError:
        with suppress(FileNotFoundError):
            os.replace(earlier, target)
        raise
    finally:
        unfinished.unlink(missing_ok=True)
        earlier.unlink(missing_ok=True)


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """(POSIX path, place) of the regular files below a folder, sorted; only links to files are followed.

    Raises
    ------
    RefusedInput
        ``not_a_file``: a socket, a pipe, a dead link or a name with a newline.
    """
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base, name)
            if "\n" in name or not path.is_file():
                raise RefusedInput(
                    "not_a_file", f"{str(path)!r} can't be kept: it is not a regular file.", hint="Remove it."
                )
            yield path.relative_to(folder).as_posix(), path


def kept_below(folder: Path, name: str) -> list[tuple[str, Path]]:
    """(path as an artifact, place) of the files of a folder that is kept under a name; refuses as `check_kept` does."""
    files = [(f"{name}/{part}", path) for part, path in files_below(folder)]
    for part, _ in files:
        check_kept(part)
    return files


def publish(source: Path, target: Path) -> Path:
    """Copy a file or folder into a new folder with a manifest; whole and on the disk when it appears under its name.

    Parameters
    ----------
    source : Path
        A file (the new folder then holds it under its own name) or a folder (its content is copied).
    target : Path
        The folder to make; when there is one already, ``-2``, ``-3`` … is added to the name.

    Returns
    -------
    Path
        The folder that was made.

    Raises
    ------
    RefusedInput
        ``not_a_file``; ``no_such_file`` for a folder without files; ``bad_name`` and ``too_many_files`` for files that
        the service would refuse.
    OSError
        The disk is full or broken; nothing is left behind.
    """
    files = _published(source)
    unfinished = target.with_name(f".tmp-{target.name}-{os.getpid()}-{os.urandom(4).hex()}")
    unfinished.mkdir(parents=True)
    try:
        lines = []
        for name, path in files:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            lines.append(f"{copy_file(path, unfinished / name)}  {name}\n")
        with open(unfinished / MANIFEST, "x", encoding="utf-8", errors="surrogateescape") as manifest:
            manifest.writelines(lines)
            manifest.flush()
            os.fsync(manifest.fileno())
        for base, _, _ in os.walk(unfinished, topdown=False):
            _sync_folder(Path(base))
        crash_point("recorder.publish.written")
        made = _rename_to_free(unfinished, target)
        for above in (target.parent, target.parent.parent):
            _sync_folder(above)
        crash_point("recorder.publish.after")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return made


def _published(source: Path) -> list[tuple[str, Path]]:
    """(POSIX path, place) of what is to be published, all of which the service will take."""
    files = list(files_below(source)) if source.is_dir() else [(source.name, source)]
    files = [(name, path) for name, path in files if name != MANIFEST]
    if not files:
        raise RefusedInput("no_such_file", f"There is no file in {str(source)!r}.", hint="Write it first.")
    check_listed([name for name, _ in files] + [MANIFEST])
    return files


def _rename_to_free(unfinished: Path, target: Path) -> Path:
    """Rename to the first free name; an empty folder under a name is taken as free, as ``rename`` takes it."""
    count = 1
    while True:
        name = target if count == 1 else target.with_name(f"{target.name}-{count}")
        try:
            os.rename(unfinished, name)
        except OSError as problem:
            if problem.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
            count += 1
        else:
            return name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checkpoint_order(folder: Path) -> tuple[int, ...]:
    """Sorts folders ``step-<n>`` and ``step-<n>-<copy>`` from old to new."""
    return tuple(int(part) for part in folder.name.split("-")[1:] if part.isdigit())


def thin(checkpoints: Path, count: int) -> None:
    """Leave the newest ones only: outside a run nobody ships checkpoints away."""
    for old in sorted(checkpoints.glob("step-*"), key=checkpoint_order)[:-count]:
        shutil.rmtree(old, ignore_errors=True)


def damage(folder: Path) -> str:
    """What is wrong with a published folder, by its manifest; empty when it is whole."""
    digests = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base, name)
            try:
                digests[path.relative_to(folder).as_posix()] = _sha256(path)
            except OSError as problem:
                return f"{path.relative_to(folder).as_posix()} can't be read: {problem.strerror or problem}"
    return unlike_manifest(folder, digests)


def unlike_manifest(folder: Path, digests: Mapping[str, str]) -> str:
    """How the files of a folder (POSIX path → sha256) differ from those of its manifest; empty when they don't."""
    try:
        wanted = _listed(folder / MANIFEST)
    except OSError:
        return "it has no manifest"
    except ValueError:
        return "its manifest is damaged"
    found = {name: digest for name, digest in digests.items() if name != MANIFEST}
    for name in sorted(wanted | found):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is not in its manifest"
        if found[name] != wanted[name]:
            return f"{name} differs from its manifest"
    return ""


def _listed(manifest: Path) -> dict[str, str]:
    """What a manifest says: POSIX path → sha256; ValueError when it can't be one."""
    wanted = {}
    for line in (
        read_small(manifest, MOST_MANIFEST_BYTES).decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    ):
        digest, _, name = line.partition("  ")
        if not _DIGEST.fullmatch(digest) or not name or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(line)
        wanted[name] = digest
    return wanted


def _sha256(path: Path) -> str:
    import hashlib

    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
