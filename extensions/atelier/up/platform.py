"""``atelier up``: runs proxy, run service and hub on this computer, and stops all but the runs at Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import http.client
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atelier.errors import AtelierError, Conflict, NotAllowed, RefusedInput, Unavailable
from atelier.hub.site import HOST, Ports, Site, free_port, is_free, login_name
from atelier.local import processes
from atelier.local.disk import is_full
from atelier.local.logs import log_tail
from atelier.settings import Settings, load_settings
from atelier.up.programs import programs_of
from atelier.up.supervisor import Keeper

READY_TIMEOUT_S = 60.0
PORT_PATIENCE_S = 2.0
SERVERS_PATIENCE_S = 10.0
LEAST_FREE_BYTES = 100 * 10**6
HOPELESS_FAILURES = 4


def main(port: int, home: Path) -> int:
    """Run the platform of one home in the foreground until Ctrl-C or SIGTERM; three lines on stdout say it is ready.

    Parameters
    ----------
    port : int
        Loopback port of the address that people open.
    home : Path
        Folder of all state; made when it is missing.

    Returns
    -------
    int
        0 after Ctrl-C or SIGTERM, 1 when it can't start (one line on stderr says why and what to do).
    """
    try:
        with _only_one(home, port):
            site = _prepare(home, port)
            return asyncio.run(_run(site))
    except AtelierError as problem:
        print(f"{problem.message} {problem.hint}".strip(), file=sys.stderr)
    except OSError as problem:
        print(explain(problem, home), file=sys.stderr)
    return 1


def explain(problem: OSError, home: Path) -> str:
    """What the disk said, in one line with what to do."""
    place = problem.filename or home
    if is_full(problem):
        return f"The disk of {place} is full: free some space, or choose another disk with ATELIER_HOME=."
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = "it lies on a read-only disk" if problem.errno == errno.EROFS else "permission denied"
        return f"{place} can't be written ({why}): choose a folder of yours with ATELIER_HOME=."
    return f"{place} can't be used ({problem.strerror}): choose another folder with ATELIER_HOME=."


@contextmanager
def _only_one(home: Path, port: int) -> Iterator[None]:
    """Hold ``run/up.lock`` of this home; the kernel drops it when the holder dies."""
    Site(home, Ports(port, 0, 0, 0)).make_folders()
    with (home / "run" / "up.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Conflict("already_up", _already_up(home, lock.read())) from None
        lock.truncate(0)
        lock.write(json.dumps({"url": f"http://{HOST}:{port}", "pid": os.getpid()}))
        lock.flush()
        yield
        lock.truncate(0)


def _already_up(home: Path, noted: str) -> str:
    try:
        note = json.loads(noted)
        where = f"at {note['url']} (process {note['pid']})"
    except (ValueError, KeyError):
        where = "and is just starting or stopping"
    return f"Atelier already runs with the home {home} {where}; a second one needs another folder, ATELIER_HOME=."


def _prepare(home: Path, port: int) -> Site:
    """Check everything that can be checked before a process is started; the site with its ports."""
    wanted = os.environ.get("ATELIER_HOST", HOST)
    if wanted not in (HOST, "localhost"):
        raise Unavailable(
            "not_loopback",
            f"ATELIER_HOST={wanted}: Atelier on one account is one trust domain and answers on {HOST} only.",
            hint=f"From another computer: ssh -L {port}:{HOST}:{port} <this computer>, then open http://{HOST}:{port}.",
        )
    free_bytes = shutil.disk_usage(home).free
    if free_bytes < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home))
    _require_one_account(load_settings(home / "atelier.yaml"), home)
    _require_port(port)
    site = Site(home, _choose_ports(home, port))
    for name in ("password", "admin_password", "cookie_secret", "proxy_token", "service_token", "up_token"):
        site.secret_file(name)
    site.save()
    return site


def _require_one_account(settings: Settings, home: Path) -> None:
    for key, value, only in (("accounts", settings.accounts, "one"), ("backend", settings.backend, "local")):
        if value != only:
            raise Unavailable(
                "not_here",
                f"{home / 'atelier.yaml'} says '{key}: {value if isinstance(value, str) else 'kubernetes'}'.",
                hint=f"'atelier up' knows only '{key}: {only}'.",
            )


def _require_port(port: int) -> None:
    if not 0 < port < 2**16:
        raise RefusedInput("bad_port", f"There is no port {port}.", hint="Choose one from 1024 to 65535 with PORT=.")
    try:
        is_free(port)
    except PermissionError as problem:
        raise NotAllowed(
            "bad_port", f"Only root may use port {port}.", hint="Choose one from 1024 on with PORT=."
        ) from problem


def _choose_ports(home: Path, public: int) -> Ports:
    """The ports of the last start; another for an inner one that is taken, unless a user server carries it."""
    if not _becomes_free(public):
        raise Conflict(
            "port_taken",
            f"Port {public} is taken by {processes.port_holder(public)}.",
            hint=f"End that, or choose another port: make up PORT={public + 1} (atelier up --port {public + 1}).",
        )
    try:
        kept = Site.load(home).ports
    except (OSError, ValueError, TypeError):
        return Ports(public, free_port(), free_port(), free_port())
    inner = (kept.hub, kept.proxy_api, kept.service)
    taken = [port for port in inner if port == public or not _becomes_free(port)]
    if taken and _server_pids(home):
        raise Conflict(
            "port_taken",
            f"Port {taken[0]}, which running notebook servers expect, is taken by {processes.port_holder(taken[0])}.",
            hint="End that, then start again.",
        )
    return Ports(public, *(free_port() if port in taken else port for port in inner))


def _becomes_free(port: int) -> bool:
    """Whether a port is free, or is within 2 s: what a killed supervisor had started needs a moment to end."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while not is_free(port):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _server_pids(home: Path) -> list[int]:
    """User servers of this home and all they have started."""
    mark = f"ATELIER_SERVER={home / 'run' / 'servers'}/".encode()
    return processes.marked(lambda entry: entry.startswith(mark))


async def _run(site: Site) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    keepers = [Keeper(program, _say) for program in programs_of(site)]
    for keeper in keepers:
        keeper.begin()
    try:
        if not await _wait_until_ready(site, keepers, stop):
            return 0 if stop.is_set() else 1
        _announce(site)
        await stop.wait()
        _say("Stopping; runs go on.")
        return 0
    finally:
        await _stop_all(site, keepers)


async def _stop_all(site: Site, keepers: list[Keeper]) -> None:
    """First the hub, so that it starts no more servers; then the servers with their kernels, proxy and service."""
    hub = next(keeper for keeper in keepers if keeper.program.name == "hub")
    await hub.stop()
    servers = asyncio.to_thread(processes.end, lambda: _server_pids(site.home), patience_s=SERVERS_PATIENCE_S)
    await asyncio.gather(servers, *(keeper.stop() for keeper in keepers if keeper is not hub))


async def _wait_until_ready(site: Site, keepers: list[Keeper], stop: asyncio.Event) -> bool:
    """True once the login page comes through the proxy; False when stopped before, or when it can't come."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stop.is_set():
        if await asyncio.to_thread(_login_page_answers, site.ports.public):
            return True
        broken = [each for each in keepers if each.failures >= HOPELESS_FAILURES and each.program.name != "run service"]
        if broken or time.monotonic() > deadline:
            program = (broken or keepers)[-1].program
            tail = f"The end of {program.log}:\n{log_tail(program.log)}"
            _say(f"Atelier can't start: the {program.name} does not stay up. {tail}")
            return False
        await asyncio.sleep(0.05)
    return False


def _login_page_answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/hub/login")
        answer = connection.getresponse()
        return answer.status == 200 and b"Atelier" in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _announce(site: Site) -> None:
    print(f"Atelier   {site.public_url}")
    print(f"User      {login_name()}")
    print(f"Password  in {site.secret_file('password')}", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
