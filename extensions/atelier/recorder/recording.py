"""``current_run()``: what code tells about its run; in a run the agent ships it, elsewhere it stays in ``.atelier/``.

Standard library only, so that it costs a training script nothing to import.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

from atelier.errors import InternalError, RefusedInput
from atelier.recorder.checks import (
    bad_name,
    checked_progress,
    existing_path,
    metric_name,
    number_of,
    plain_path,
    whole_number,
)
from atelier.recorder.lines import LineFile, LostLines
from atelier.recorder.spool import Control, checkpoint_order, claim, damage, keep_file, kept_below, publish, thin

Item = TypeVar("Item")

KEPT_LOCAL_CHECKPOINTS = 3
"""How many checkpoints stay outside a run; inside one the agent removes what is stored, but for the newest."""

_TRACK_EVERY_S = 0.2
_LINE_VALUES = 256
"""Most values of a line: with the longest names they take less than the MiB that an agent surely takes at once."""

_SPECIAL = {"nan": '"nan"', "inf": '"inf"', "-inf": '"-inf"'}

_current: dict[str, Recorder] = {}


def current_run() -> Recorder:
    """The run that this process belongs to, else a local recorder with the same methods; the same object every time.

    Examples
    --------
    >>> job = atelier.current_run()
    >>> for epoch in job.track(range(5)):
    ...     job.log(step=epoch, loss=0.21)
    """
    place = os.environ.get("ATELIER_RUN_DIR", "")
    return _current.get(place) or _current.setdefault(place, Recorder.from_environment(os.environ))


class Recorder:
    """Metrics, progress, files and checkpoints of one run.

    All methods may be called from any thread and from forked children.

    Parameters
    ----------
    folder : Path
        Holds ``spool/``; made when first written to.
    run_id : str
        The run's id; outside a run the folder's name.
    params : mapping
        The run's parameters.
    resume_from : Path or None
        Where an earlier attempt's newest checkpoint lies; it is checked when first asked for.
    in_run : bool
        Whether an agent ships what is recorded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        params: Mapping[str, Any] | None = None,
        resume_from: Path | None = None,
        in_run: bool = False,
        attempt: int = 1,
    ) -> None:
        self.folder = folder
        self.id = run_id
        self.in_run = in_run
        self.attempt = attempt
        self._params = dict(params or {})
        self._spool = folder / "spool"
        self._metrics, self._events = self._file("metrics.jsonl"), self._file("events.jsonl")
        self._quoted: dict[str, str] = {}
        self._warned: set[str] = set()
        self._last: dict[str, float] = {}
        self._progress: tuple[float, float | None] | None = None
        self._control = Control(self._spool)
        self._resume_candidate = resume_from
        self._resume: tuple[Path | None] | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Recorder:
        """The recorder that the agent's environment describes, else one for ``./.atelier/<UTC time>-<pid>/``."""
        resume_from = Path(environ["ATELIER_RESUME_FROM"]) if environ.get("ATELIER_RESUME_FROM") else None
        if not environ.get("ATELIER_RUN_DIR"):
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
            return cls(Path.cwd() / ".atelier" / name, run_id=name, resume_from=resume_from)
        folder = Path(environ["ATELIER_RUN_DIR"])
        return cls(
            folder,
            run_id=environ.get("ATELIER_RUN_ID") or folder.name,
            params=_read_params(environ.get("ATELIER_PARAMS")),
            resume_from=resume_from,
            in_run=True,
            attempt=int(environ.get("ATELIER_ATTEMPT") or 1),
        )

    def _file(self, name: str) -> LineFile:
        lost = LostLines(self._spool / name) if self.in_run else None
        return LineFile(self._spool / name, before_open=self._prepare, lost=lost)

    @property
    def params(self) -> dict[str, Any]:
        """The run's parameters, a copy; empty outside a run."""
        return dict(self._params)

    def log(self, step: SupportsIndex | float | None = None, **values: SupportsFloat) -> None:
        """Record numbers.

        Costs some microseconds, is never lost once it returned, and never fails for a disk in trouble (the points
        lost are counted, and said once on stderr). A value that is not finite is kept as such, and warned of once.

        Parameters
        ----------
        step : int, optional
            Where on the x axis; the epoch or batch.
        **values : number
            Name → value: int, float, or what ``float()`` takes, as a NumPy, PyTorch or TensorFlow scalar. For names
            that are no identifiers: ``log(step=3, **{"val/loss": 0.2})``.

        Raises
        ------
        RefusedInput
            ``bad_metric``: a name that is empty, too long, not printable or begins with ``system/``, a value that is no
            number, a step that is no whole number.

        Examples
        --------
        >>> job.log(step=3, loss=0.21, accuracy=0.93)
        """
        position = "null" if step is None else str(whole_number(step))
        parts = []
        for name, value in values.items():
            number = value if type(value) is float else number_of(name, value)
            text = repr(number)
            if not math.isfinite(number):
                text = _SPECIAL[text]
                self._warn_once(f"{name} is {number} at step {position}.", key=f"finite {name}")
            parts.append((self._quoted.get(name) or self._quote(name)) + text)
            self._last[name] = number
        if not parts:
            raise RefusedInput("bad_metric", "log() was given no value.", hint="Write log(step=3, loss=0.21).")
        begin = f'{{"t":{time.time():.6f},"step":{position},"values":{{'
        for at in range(0, len(parts), _LINE_VALUES):
            self._metrics.append(f"{begin}{','.join(parts[at : at + _LINE_VALUES])}}}}}\n".encode())

    def _quote(self, name: str) -> str:
        return self._quoted.setdefault(name, f"{json.dumps(metric_name(name))}:")

    def progress(self, done: float, total: float | None = None) -> None:
        """Say how far the work is: ``progress(3, total=5)``. Time left is known from the second call on.

        Raises
        ------
        RefusedInput
            ``bad_progress``: not finite, negative, or total not above zero.
        """
        now, end = checked_progress(done, total)
        self._progress = (now, end)
        self._event("progress", done=now, total=end)

    def track(self, iterable: Iterable[Item], total: float | None = None) -> Iterator[Item]:
        """Yield the items and report progress, at most five times a second and at the end.

        ``total`` is ``len(iterable)`` where it has one.
        """
        length = getattr(iterable, "__len__", None)
        end = total if total is not None else length() if callable(length) else None
        end = end or None
        self.progress(0, end)
        said_s = time.monotonic()
        done = 0
        for done, item in enumerate(iterable, start=1):
            yield item
            if time.monotonic() - said_s >= _TRACK_EVERY_S or done == end:
                self.progress(done, end)
                said_s = time.monotonic()
        if done not in {0, end}:
            self.progress(done, end)

    def checkpoint(self, path: str | os.PathLike[str], step: SupportsIndex) -> Path:
        """Keep a copy of a file or folder from which a later attempt can go on; it is on the disk when this returns.

        Parameters
        ----------
        path : path
            A file, or a folder whose content is copied. It may be changed or removed afterwards.
        step : int
            How far the training was; the highest one is the newest.

        Returns
        -------
        Path
            The copy; it stays until a later one is stored. A later attempt finds the same files below `resume_from`.

        Raises
        ------
        RefusedInput
            ``no_such_file`` (none of that name, or none in the folder), ``not_a_file``, ``bad_metric`` (the step),
            ``bad_name`` (too long, not UTF-8, with a backslash or a control character), ``too_many_files``.
        OSError
            The disk is full or broken: there is no checkpoint of this call, and the ones before are as they were.
        """
        source = existing_path(path)
        number = whole_number(step)
        if number < 0:
            raise RefusedInput("bad_metric", f"A step can't be {number}.", hint="Count from 0.")
        made = publish(source, self._spool / "checkpoints" / f"step-{number:08d}")
        self._events.announce(made, _event_line("checkpoint", step=number, folder=f"checkpoints/{made.name}"))
        if not self.in_run:
            thin(made.parent, KEPT_LOCAL_CHECKPOINTS)
        return made

    @property
    def resume_from(self) -> Path | None:
        """Folder of the newest whole checkpoint of an earlier attempt, or None.

        Damaged ones are passed over, and named by a warning.
        """
        if self._resume is None:
            self._resume = (self._newest_whole(),)
        return self._resume[0]

    def _newest_whole(self) -> Path | None:
        newest = self._resume_candidate
        if newest is None:
            return None
        named = [path for path in newest.parent.glob("step-*") if newest.name.startswith("step-")]
        older = [path for path in named if checkpoint_order(path) < checkpoint_order(newest)]
        for folder in (newest, *sorted(older, key=checkpoint_order, reverse=True)):
            wrong = damage(folder)
            if not wrong:
                return folder
            self._warn_once(f"The checkpoint {folder.name} is not used: {wrong}.", key=str(folder), aloud=True)
        return None

    def should_stop(self) -> bool:
        """Whether the run was asked to end (cancelled, out of time, its place needed): save a checkpoint and return.

        Cheap enough for every batch. Always False outside a run.
        """
        return self.stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """Why `should_stop` is true; None while it is not.

        ``cancel``, ``preempt`` or ``deadline``, with ten seconds to save what matters, unless the cancel says *now*;
        ``stalled`` or ``disk_quota``, with half a second.
        """
        if not self.in_run:
            return None
        try:
            return self._control.order()
        except (OSError, ValueError) as problem:
            self._warn_once(f"control.json can't be read: {problem}.", key="control")
            return self._control.known

    def save(self, path: str | os.PathLike[str], name: str | None = None) -> Path:
        """Keep a copy of a file, or of all files of a folder, as artifacts of the run; a name's second one replaces it.

        In a run the copy, whose path is returned, goes as soon as it is stored.

        Parameters
        ----------
        path : path
            What to keep.
        name : str, optional
            Its path among the artifacts; default the relative path given, else the file's name.

        Raises
        ------
        RefusedInput
            ``no_such_file``, ``not_a_file``; ``bad_name`` (absolute, too long, with ``..`` or a backslash, unprintable)
            of it or of a file in a folder; ``path_taken`` (one saved before would be its folder, or it that one's).
        OSError
            The disk is full or broken: the file that it names is not kept, and an earlier one is as it was.

        Examples
        --------
        >>> job.save("confusion.png")
        """
        source = existing_path(path)
        given = PurePosixPath(os.fspath(path))
        is_below = not given.is_absolute() and ".." not in given.parts and given.name
        kept = plain_path(name or (str(given) if is_below else source.resolve().name))
        for part, file in [(kept, source)] if source.is_file() else kept_below(source, kept):
            self._keep(file, part)
        return self._spool / "artifacts" / kept

    def _keep(self, source: Path, name: str) -> None:
        claim(self._spool, name)
        line = _event_line("artifact", path=name)
        keep_file(source, self._spool, name, lambda copy: self._events.announce(copy, line))

    def add_model(self, name: str, folder: str | os.PathLike[str]) -> Path:
        """Hand over a whole model package (as `atelier.export` makes it), to be published as a version of a model.

        In a run the copy, whose path is returned, goes as soon as it is stored.

        Raises
        ------
        RefusedInput
            ``no_such_file``, ``not_a_file``, ``bad_name`` (a name is one printable part without slashes).
        OSError
            The disk is full or broken: the package is not handed over.
        """
        source = existing_path(folder)
        if "/" in name or not source.is_dir():
            raise bad_name(name)
        made = publish(source, self._spool / "models" / plain_path(name))
        self._events.announce(made, _event_line("model", name=name, folder=f"models/{made.name}"))
        return made

    def warn(self, text: str) -> None:
        """Put a sentence among the warnings of the run's record."""
        self._event("warning", text=text)

    def metrics(self) -> list[dict[str, Any]]:
        """What was logged so far, one row a value: ``name``, ``step``, ``value``, ``time`` (epoch seconds)."""
        return [
            {"name": name, "step": point["step"], "value": float(value), "time": point["t"]}
            for point in self._metrics.read()
            for name, value in point["values"].items()
        ]

    def _event(self, kind: str, **content: Any) -> None:
        self._events.append(_event_line(kind, **content))

    def _warn_once(self, text: str, *, key: str, aloud: bool = False) -> None:
        if key not in self._warned:
            self._warned.add(key)
            self.warn(text)
            if aloud and sys.stderr is not None:
                print(f"atelier: {text}", file=sys.stderr)

    def _prepare(self) -> None:
        """Outside a run, keep what is recorded out of git."""
        if not self.in_run:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            (self.folder.parent / ".gitignore").write_text("*\n")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process (a data loader's worker) records to the same place."""
        facts: dict[str, Any] = {
            "run_id": self.id,
            "params": self._params,
            "in_run": self.in_run,
            "attempt": self.attempt,
        }
        return functools.partial(type(self), self.folder, resume_from=self._resume_candidate, **facts), ()

    def __repr__(self) -> str:
        place = "run" if self.in_run else "local recorder"
        return f"<atelier {place} {self.id}, {len(self._last)} metrics>"

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><td>{escape(name)}</td><td>{value:.6g}</td></tr>" for name, value in self._last.items())
        done = f", {self._progress[0]:g} of {self._progress[1] or '?'} done" if self._progress else ""
        where = "" if self.in_run else f"<br>Recorded in <code>{escape(str(self.folder))}</code>"
        title = "Run" if self.in_run else "Not in a run:"
        return f"<div><b>{title} {escape(self.id)}</b>{done}{where}<table>{rows}</table></div>"


def _event_line(kind: str, **content: Any) -> bytes:
    return json.dumps({"t": round(time.time(), 6), "type": kind, **content}).encode() + b"\n"


def _read_params(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        params = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as problem:
        raise InternalError("bad_params", "The run's parameters can't be read.", hint="Submit it again.") from problem
    return params if isinstance(params, dict) else {}
