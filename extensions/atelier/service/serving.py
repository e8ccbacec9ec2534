"""One run service over one ``ATELIER_HOME``: its lock, its sockets, its note for clients, its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import hashlib
import json
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import uvicorn

from atelier.errors import Conflict, RefusedInput
from atelier.local.catalog import LiveCatalog
from atelier.local.processes import adopt_orphans, started_at
from atelier.quantities import utcnow
from atelier.records import FINAL_STATES
from atelier.service.app import create_app
from atelier.service.attempts import AttemptManager
from atelier.service.backends import LocalBackend
from atelier.service.backups.restoring import refuse_unfinished
from atelier.service.callers import HubIdentities, Identities, KnownCallers, LocalIdentities
from atelier.service.connections import ImpatientConnection
from atelier.service.feed import Feed
from atelier.service.handlers.context import Service
from atelier.service.housekeeping import Housekeeper
from atelier.service.manager import RunManager
from atelier.service.models import ModelManager
from atelier.service.orphaned import refuse_orphaned
from atelier.service.reconciler import Reconciler
from atelier.service.retention import Expiry
from atelier.service.scratch import clear_scratch
from atelier.service.sole import Sole, sole_user
from atelier.service.store import Store
from atelier.service.streams import Streams
from atelier.service.sweeping import Sweeper
from atelier.service.timekeeping import Timekeeper
from atelier.settings import Settings, load_settings
from atelier.storage import open_blobs

log = logging.getLogger("atelier.service")

IDLE_S = 600.0
LONGEST_SOCKET_PATH = 100
HANDOVER_S = 15.0


@dataclass(frozen=True)
class Plan:
    """How to serve: the folder of all state, a loopback port, the hub's API, whether to end when idle."""

    home: Path
    port: int | None = None
    hub: str | None = None
    embedded: bool = False


class _Server(uvicorn.Server):
    """uvicorn without its habit of raising a caught signal again at the end, which would skip our own clean-up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


@dataclass
class _Idle:
    last_call: float

    def touch(self) -> None:
        self.last_call = time.monotonic()


async def serve(plan: Plan) -> None:
    """Serve until SIGTERM or SIGINT; embedded, also until `IDLE_S` seconds without a call and an unfinished run.

    Raises
    ------
    Conflict
        ``already_serving``: another service holds this home. ``database_in_use``: another one works over its database.
    RefusedInput
        ``bad_settings``, ``network_disk``, ``port_taken``.
    """
    adopt_orphans()
    make_private(plan.home)
    run_folder = make_private(plan.home / "run")
    with _only_one(run_folder, takes_over=not plan.embedded), _sockets(plan, run_folder) as (path, sockets):
        token_file = private_token(make_private(plan.home / "secrets") / "service_user_token")
        idle = _Idle(time.monotonic())
        clear_scratch(run_folder / "uploads")  # what a service that was killed was receiving
        with sole_user(database_url(plan.home, load_settings(plan.home / "atelier.yaml")), plan.home) as sole:
            service = assemble(plan, path, token_file.read_text().strip(), idle)
            server = server_of(service)
            watchers = [asyncio.create_task(_end_when_idle(server, service, idle))] if plan.embedded else []
            if sole is not None:
                service.reconciler.may_decide = sole.is_held
                watchers.append(asyncio.create_task(_end_when_lost(server, sole)))
            with _note(run_folder / "service.json", plan, path, token_file):
                await server.serve(sockets=sockets)
            for watcher in watchers:
                watcher.cancel()
        if sole is not None and sole.taken is not None:
            raise sole.taken


def server_of(service: Service) -> uvicorn.Server:
    """What answers HTTP for a service, on sockets that it is given."""
    config = uvicorn.Config(
        create_app(service),
        http=ImpatientConnection,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        lifespan="on",
    )
    return _Server(config)


def assemble(plan: Plan, socket_path: Path, token: str, idle: _Idle) -> Service:
    """All parts of a service over a home; opens the store and brings its schema up to date."""
    home = plan.home
    refuse_unfinished(home)
    settings = load_settings(home / "atelier.yaml")
    blobs = open_blobs(settings.blobs or make_private(home / "blobs").as_uri())
    url = database_url(home, settings)
    store = Store(url, lambda: refuse_orphaned(blobs, url), queue_patience_s=settings.limits.queue_patience)
    backend = LocalBackend(home, {"socket": str(socket_path)})
    catalog = LiveCatalog(settings, home)
    scratch = make_private(home / "run" / "uploads")
    feed, streams, models = Feed(store), Streams(store, blobs, scratch), ModelManager(store, blobs, settings.limits)
    runs = RunManager(store, blobs, catalog, settings.limits, backend.most_nodes, scratch)
    attempts = AttemptManager(store, blobs, catalog, settings.limits, streams, models, feed)
    is_held = Timekeeper(home / "run" / "clock.json").is_held
    reconciler = Reconciler(store, backend, runs, attempts, feed, settings.limits, is_held)
    callers = KnownCallers(*_identities(token, plan.hub, os.environ))
    expiry = Expiry(store, blobs, runs, settings.retention, feed.touch, is_held=is_held)
    sweeper = Sweeper(store, blobs, home / "run" / "orphans.json", is_held=is_held)
    house = Housekeeper(store, blobs, runs, expiry, sweeper, models, home / "envs" / "layers")
    parts = (settings, store, blobs, callers, runs, attempts, streams, models, feed, reconciler, house, scratch)
    return Service(*parts, idle.touch)


def database_url(home: Path, settings: Settings) -> str:
    """SQLAlchemy's URL of a home's database."""
    return settings.database or f"sqlite:///{make_private(home / 'db') / 'atelier.sqlite'}"


def _identities(token: str, hub: str | None, environ: Mapping[str, str]) -> list[Identities]:
    local_name = (environ.get("ATELIER_LOCAL_USER") or getpass.getuser()).lower()
    sources: list[Identities] = [LocalIdentities(token, local_name)]
    if hub is not None:
        hub_token = Path(environ["ATELIER_HUB_TOKEN_FILE"]).read_text().strip()
        sources.append(HubIdentities(hub.rstrip("/"), hub_token, local_name))
    return sources


async def _end_when_idle(server: uvicorn.Server, service: Service, idle: _Idle) -> None:
    while not server.should_exit:
        await asyncio.sleep(1)
        if time.monotonic() - idle.last_call < float(os.environ.get("ATELIER_IDLE_S", IDLE_S)):
            continue
        counts = await asyncio.to_thread(service.store.runs.counts)
        if all(state in FINAL_STATES for state in counts) and not server.server_state.connections:
            server.should_exit = True


async def _end_when_lost(server: uvicorn.Server, sole: Sole) -> None:
    problem = await sole.lost()
    log.error("%s This service ends.", problem.message)
    server.should_exit = True


@contextlib.contextmanager
def _only_one(run_folder: Path, *, takes_over: bool) -> Iterator[None]:
    """Hold the home's lock. A platform's service asks an embedded one to leave; any other holder is respected."""
    deadline = time.monotonic() + HANDOVER_S
    with (run_folder / "service.lock").open("a") as lock:
        while not _try_lock(lock):
            if not (takes_over and _ask_to_leave(run_folder)) or time.monotonic() > deadline:
                raise Conflict(
                    "already_serving",
                    f"Another run service holds {run_folder.parent}.",
                    hint="Use it, or stop it first.",
                )
            time.sleep(0.1)
        yield


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ask_to_leave(run_folder: Path) -> bool:
    """Tell an embedded service to end; False when the holder is not one. One that is just starting has no note yet."""
    try:
        note = json.loads((run_folder / "service.json").read_text())
    except (FileNotFoundError, ValueError):
        return True
    if note["embedded"] and started_at(note["pid"]) == note["born"]:
        os.kill(note["pid"], signal.SIGTERM)
    return bool(note["embedded"])


@contextlib.contextmanager
def _sockets(plan: Plan, run_folder: Path) -> Iterator[tuple[Path, list[socket.socket]]]:
    path = socket_path(run_folder)
    path.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX)
    opened = [unix]
    try:
        with _mask(0o177):
            unix.bind(str(path))
        if plan.port is not None:
            opened.append(_loopback(plan.port))
        yield path, opened
    finally:
        for each in opened:
            each.close()
        path.unlink(missing_ok=True)


def _loopback(port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", port))
    except OSError as problem:
        one.close()
        raise RefusedInput(
            "port_taken", f"Port {port} can't be used: {problem.strerror}.", hint="Choose another port."
        ) from problem
    return one


def socket_path(run_folder: Path) -> Path:
    """Where the Unix socket lies: in the home, or in a private temporary folder when that path would be too long."""
    path = run_folder / "service.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:16]
    return make_private(Path(tempfile.gettempdir()) / f"atelier-{os.getuid()}-{name}") / "service.sock"


@contextlib.contextmanager
def _note(path: Path, plan: Plan, socket_file: Path, token_file: Path) -> Iterator[None]:
    url = f"http://127.0.0.1:{plan.port}" if plan.port is not None else None
    told = {
        "pid": os.getpid(),
        "socket": str(socket_file),
        "token_file": str(token_file),
        "url": url,
        "embedded": plan.embedded,
        "born": started_at(os.getpid()),
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told | {"started_at": utcnow().isoformat()}))
    os.replace(part, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def private_token(path: Path) -> Path:
    """A file with a random token, mode 0600, made once and whole; an empty one, of a full disk, is made anew."""
    if path.is_symlink() or (path.exists() and path.stat().st_size == 0):
        path.unlink()
    if not path.exists():
        part = path.with_name(f".{path.name}-{os.getpid()}")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        part.unlink()
    return path


def make_private(folder: Path) -> Path:
    """A folder that only its owner may enter.

    Raises
    ------
    RefusedInput
        ``not_private``: it belongs to another account. ``not_a_folder``.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as problem:
        words = f"{folder} can't be a folder: there is a file in its place, or above it."
        raise RefusedInput("not_a_folder", words, hint="Move it away, or give another ATELIER_HOME.") from problem
    if folder.stat().st_uid != os.getuid():
        raise RefusedInput("not_private", f"{folder} belongs to another account.", hint="Give another ATELIER_HOME.")
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def _mask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
