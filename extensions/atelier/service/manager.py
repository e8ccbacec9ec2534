"""What users ask of runs: submit, look, cancel, remove."""

from __future__ import annotations

import difflib
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from atelier.bundle.archive import bundle_reader
from atelier.crash_points import crash_point
from atelier.errors import NotAllowed, RefusedInput
from atelier.local.catalog import availability
from atelier.reasons import ANY_REASON, RETRY_CHOICES
from atelier.records import RUN_ID, Run, RunSpec, Source
from atelier.service.callers import Caller
from atelier.service.scratch import scratch_file
from atelier.service.store import NewRun, Store
from atelier.settings import Catalog, Image, Limits, Machine, may_use
from atelier.storage import BlobStore, RunPaths
from atelier.storage.paths import upload_key
from atelier.works.finding import check_work

CANCEL_GRACE_S = 10.0
CURRENT = "current"
_DISPLAY_NAME = re.compile(r"[\w .,:;()\[\]+=@#%&'!?-]{1,200}")
_MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass
class RunManager:
    """Decides on runs; the reconciler carries out.

    ``offers`` gives the catalog of now; ``most_nodes`` is how many nodes the backend can give one run; ``scratch`` a
    folder for temporary files, the system's own when None.
    """

    store: Store
    blobs: BlobStore
    offers: Callable[[], Catalog]
    limits: Limits
    most_nodes: int = 1
    scratch: Path | None = None
    _guards: tuple[threading.Lock, ...] = field(default_factory=lambda: tuple(threading.Lock() for _ in range(64)))

    @property
    def catalog(self) -> Catalog:
        """What there is to pick from now."""
        return self.offers()

    def submit(self, caller: Caller, spec: RunSpec, source: Source, key: str | None) -> tuple[Run, bool]:
        """The run of a spec, queued, and whether it is new.

        Everything that can be refused is refused here, before anything is stored: reasons of retries, image, machine,
        name, nodes, bundle, code, parameters.
        """
        if key is not None and len(key) > 200:
            raise RefusedInput("bad_key", "The Idempotency-Key is longer than 200 characters.", hint="Send a UUID.")
        check_reasons(spec.retry_on)
        image, machine = self._image(caller, spec), self.catalog.machine(spec.machine, caller.groups)
        self._check_fit(spec, machine)
        name = checked_name(spec.name or default_name(spec))
        upload = upload_key(caller.owner, spec.bundle)
        with self._guard(caller.owner):
            seen = self.store.runs.seen_submission(caller.owner, key) if key else None
            if seen is None:
                self._check_code(spec, upload)
            new = NewRun(
                owner=caller.owner,
                project=_project(caller, spec),
                name=name,
                spec=spec.model_copy(update={"image": image.name, "machine": machine.name}),
                image=image.name,
                machine=machine.name,
                cpu=machine.cpu,
                memory_bytes=machine.memory,
                accelerators=dict(machine.accelerators),
                source=source.model_dump(mode="json"),
                warnings=list(source.warnings),
                idempotency_key=key,
            )
            crash_point("service.submit.before")
            run, fresh = self.store.runs.submit(new)
            crash_point("service.submit.after")
            if fresh:
                self.complete(run)
        return self.store.runs.get(run.id), fresh

    def _guard(self, owner: str) -> threading.Lock:
        """Held while an owner's upload is used or removed; some owners share one."""
        return self._guards[hash(owner) % len(self._guards)]

    def complete(self, run: Run) -> None:
        """created → queued: give the run its own copy of the bundle. Called again after a crash, it goes on."""
        paths = RunPaths(run.id)
        if not self.blobs.exists(paths.bundle):
            crash_point("service.bundle.before")
            self.blobs.copy(upload_key(run.owner, run.spec.bundle), paths.bundle)
            crash_point("service.bundle.after")
        self.store.runs.queue(run.id)
        crash_point("service.queue.after")

    def _image(self, caller: Caller, spec: RunSpec) -> Image:
        catalog = self.catalog
        if spec.image == CURRENT or (spec.image is None and spec.python and not catalog.images):
            if not caller.is_local or not spec.python:
                raise NotAllowed(
                    "image_not_allowed",
                    "The image 'current' is the caller's own interpreter; it can be used only without a hub.",
                    hint="Name an image of the catalog.",
                )
            return Image(name=CURRENT, title="The caller's own Python", python=spec.python)
        image = catalog.image(spec.image or _usable_image(catalog, caller), caller.groups)
        why = availability(image)
        if why is not None:
            raise RefusedInput("image_not_available", f"The image {image.name!r} is not available.", hint=why)
        return image

    def _check_fit(self, spec: RunSpec, machine: Machine) -> None:
        why = availability(machine)
        if why is not None:
            raise RefusedInput(
                "machine_not_available",
                f"The machine {machine.name!r} can't be given: {why}",
                hint="Pick another machine.",
            )
        if spec.data:
            raise RefusedInput(
                "unknown_dataset",
                f"There is no dataset {spec.data[0][:80]!r}: this platform keeps no versions of data.",
                hint="Leave 'data' out, and read the files of a data root: atelier.data.list() names the roots.",
            )
        if spec.nodes > self.most_nodes:
            raise RefusedInput(
                "too_many_nodes",
                f"A run here has at most {self.most_nodes} node, and {spec.nodes} were asked for.",
                hint="Runs on many nodes need a cluster.",
            )
        for what, asked, most in (
            ("CPU", machine.cpu, self.limits.cpu_per_user),
            ("memory", machine.memory, self.limits.memory_per_user),
        ):
            if most is not None and asked > most:
                raise RefusedInput(
                    "over_user_limit",
                    f"The machine {machine.name!r} has more {what} than one user may use.",
                    hint="Pick a smaller one.",
                )

    def _check_code(self, spec: RunSpec, upload: str) -> None:
        if not self.blobs.exists(upload):
            raise RefusedInput(
                "unknown_bundle",
                f"The bundle {spec.bundle[:12]}… was not uploaded.",
                hint="PUT it to /bundles/<sha256> first.",
            )
        with (
            self.blobs.open(upload) as source,
            scratch_file(self.scratch, suffix=".tar.zst") as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            read = bundle_reader(Path(copy.name), limit_bytes=self.limits.unpacked_size)
            check_work(read, spec.work, spec.params)

    def cancel(self, run_id: str, *, now: bool) -> Run:
        """Ask for a run's end; ``now`` gives its code no time to finish. A final run stays as it is."""
        grace_s = 0.0 if now else CANCEL_GRACE_S
        crash_point("service.cancel.before")
        run = self.store.reserve.use(lambda: self.store.runs.cancel(run_id, grace_s=grace_s))
        crash_point("service.cancel.after")
        return run

    def pin(self, run_id: str, *, pinned: bool) -> Run:
        """Keep a run, of any state, until its owner removes it; or no longer."""
        self.store.reserve.use(lambda: self.store.keeping.pin(run_id, pinned=pinned))
        return self.store.runs.get(run_id)

    def remove(self, run: Run) -> None:
        """Forget a final run and all its blobs, also the upload of its code; models made by it stay.

        The housekeeper sweeps once more: this may be cut off after its first step, or somebody write meanwhile.
        """
        crash_point("service.remove.before")
        self.store.reserve.use(lambda: self.store.runs.remove(run.id))
        crash_point("service.remove.rows")
        self._clear(run)
        crash_point("service.remove.after")

    def release(self, run: Run) -> bool:
        """The same for retention; False, with nothing done, when the run has been pinned or has made a model since."""
        is_gone = self.store.reserve.use(lambda: self.store.keeping.release(run.id))
        if is_gone:
            self._clear(run)
        return is_gone

    def _clear(self, run: Run) -> None:
        self.blobs.delete(RunPaths(run.id).root)
        crash_point("service.remove.blobs")
        upload = upload_key(run.owner, run.spec.bundle)
        with self._guard(run.owner):
            if self.blobs.exists(upload) and not self.store.removals.uses_bundle(run.owner, run.spec.bundle):
                self.blobs.delete(upload)

    def resolve(self, owner: str, text: str) -> Run:
        """A run by its id, by a unique prefix of it, or ``last``."""
        if RUN_ID.fullmatch(text):
            return self.store.runs.get(text, owner)
        if text == "last":
            newest = self.store.runs.page(owner, states=(), limit=1, before=None)
            found = [run.id for run in newest]
        else:
            found = self.store.runs.find(owner, text) if text.startswith("r-") and len(text) > 2 else []
        if len(found) > 1:
            raise RefusedInput(
                "ambiguous_run", f"{text!r} fits several runs: {', '.join(found)} …", hint="Give more letters."
            )
        return self.store.runs.get(found[0] if found else text, owner)


def _usable_image(catalog: Catalog, caller: Caller) -> str | None:
    """The first image that the caller may use and that is there."""
    usable = (each.name for each in catalog.images if may_use(each, caller.groups) and availability(each) is None)
    return next(usable, None)


def check_reasons(named: Sequence[str]) -> None:
    """Refuse what is no reason that a run can be tried again after.

    Raises
    ------
    RefusedInput
        ``unknown_reason``, with the known ones.
    """
    known = [*RETRY_CHOICES, ANY_REASON]
    for name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise RefusedInput(
                "unknown_reason",
                f"A run can't be tried again after {name!r}.",
                hint=(f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(known)}.",
                detail={"known": known, "nearest": near[0] if near else None},
            )


def _project(caller: Caller, spec: RunSpec) -> str:
    if spec.project is None or spec.project == caller.owner:
        return caller.owner
    if spec.project not in caller.groups:
        raise NotAllowed(
            "project_not_allowed", f"You are not in the project {spec.project!r}.", hint="Leave it out for your own."
        )
    return spec.project


def default_name(spec: RunSpec) -> str:
    """A run's name when its owner gives none: the work's own."""
    target = PurePosixPath(spec.work.target)
    return re.sub(r"[^\w .:-]", "-", target.stem if target.suffix in {".ipynb", ".py"} else spec.work.target)[:200]


def checked_name(name: str) -> str:
    """A run's name when it can be shown and written anywhere.

    Raises
    ------
    RefusedInput
        ``bad_name``: control characters, slashes, symbols, or longer than 200 characters.
    """
    if not _DISPLAY_NAME.fullmatch(name) or not name.strip():
        proper = re.sub(r"[^\w .-]+", "-", name).strip("- ")[:60] or "run"
        raise RefusedInput(
            "bad_name",
            f"{name[:80]!r} can't be the name of a run: use letters, digits, spaces and . _ - only, at most 200.",
            hint=f"For example {proper!r}.",
        )
    return name


def checked_model_name(name: str, what: str = "model") -> str:
    """A model's or alias' name when it is a plain one: lower-case letters, digits, ``.``, ``_``, ``-``; at most 63."""
    if not _MODEL_NAME.fullmatch(name):
        proper = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:60] or what
        raise RefusedInput(
            "bad_name",
            f"{name[:80]!r} can't name {'an' if what[0] in 'aeiou' else 'a'} {what}: use at most 63 lower-case letters,"
            " digits and . _ -",
            hint=f"For example {proper!r}.",
        )
    return name
