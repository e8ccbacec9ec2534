"""The service's HTTP resources as methods; what comes back is the service's own JSON.

Plain dictionaries, not records: an older client must bear a field that a newer service adds, and the command line
starts 0.3 s sooner without pydantic. `atelier.handle` makes records of them.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from atelier.client.address import Address, address_in
from atelier.client.downloads import download, safe_target
from atelier.client.embedded import find_or_start
from atelier.client.events import Event, parse_events
from atelier.client.transport import Transport
from atelier.errors import NotAllowed, NotFound, Unreachable
from atelier.home import atelier_home

Json = dict[str, Any]
PAGE = 200
AWAY_LIMIT_S = 300.0
"""How long an event stream waits for a service that is being replaced."""


class Client:
    """A client of the run service.

    Every method raises `Unreachable` when the service does not answer, and whatever error of `atelier.errors` it
    answers with. Reads, uploads and submits are repeated for 5 s while the service restarts.

    Parameters
    ----------
    transport : Transport
        The connection; `Client.find` and `Client.at` make it.
    behind_hub : bool
        Whether the service is a hub's, so that interpreters of this machine mean nothing to it.

    Examples
    --------
    >>> with Client.find() as client:  # doctest: +SKIP
    ...     client.runs(state="running")["items"]
    """

    def __init__(self, transport: Transport, *, behind_hub: bool = True) -> None:
        self._transport = transport
        self.behind_hub = behind_hub

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The service of a user server (``ATELIER_URL``), else the one of this user's home, started when needed.

        Nothing is connected or started before the first call.

        Raises
        ------
        NotAllowed
            ``inside_run``: this is code in a run, which has no way to the service; ``no_token``: a URL without one.
        """
        environ = os.environ if environ is None else environ
        named = address_in(environ)
        if named:
            return cls.at(named)
        if environ.get("ATELIER_RUN_DIR"):
            raise NotAllowed(
                "inside_run",
                "Code in a run can't call the run service.",
                hint="Submit from the notebook or a terminal. In a run, models are registered by atelier.export and "
                "files are kept by atelier.current_run().save.",
            )
        home = atelier_home(environ)
        return cls(Transport(lambda: find_or_start(home)), behind_hub=False)

    @classmethod
    def at(cls, address: Address) -> Self:
        """The service at a known address."""
        return cls(Transport(lambda: address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; a later call opens a new one."""
        self._transport.close()

    @property
    def where(self) -> str:
        """Where the service was found, in words."""
        return self._transport.where

    def catalog(self) -> Json:
        """Who the caller is, and the images, machines, roots and limits that are for him."""
        return self._get("/catalog")

    def has_blob(self, kind: str, sha256: str) -> bool:
        """Whether the caller has put this content before; ``kind`` is ``"bundles"`` or ``"uploads"``."""
        try:
            self._transport.request("HEAD", f"/{kind}/{sha256}")
        except NotFound:
            return False
        return True

    def put_bundle(self, path: Path, sha256: str) -> None:
        """Send a bundle unless the service has it."""
        self._put("bundles", path, sha256)

    def put_upload(self, path: Path) -> str:
        """Send a file of a model package unless the service has it; its sha256."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._put("uploads", path, sha256)
        return sha256

    def _put(self, kind: str, path: Path, sha256: str) -> None:
        if not self.has_blob(kind, sha256):
            headers = {"Content-Type": "application/octet-stream"}
            self._transport.request("PUT", f"/{kind}/{sha256}", body=path, headers=headers)

    def submit(self, spec: Any, *, source: Any = None, idempotency_key: str | None = None) -> Json:
        """Make a run. The same key again gives the same run, so a lost answer makes no second one.

        Parameters
        ----------
        spec : RunSpec or dict
            What to run; its bundle must have been put.
        source : Source or dict, optional
            Where the code came from.
        idempotency_key : str, optional
            A fresh one when not given.
        """
        body = _plain(spec)
        if source is not None:
            body["source"] = _plain(source)
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._json("POST", "/runs", json=body, headers=headers)

    def runs(self, *, state: str | None = None, limit: int = 50, page: str | None = None) -> Json:
        """One page of the caller's runs, newest first: ``{"items": […], "next": token or None}``."""
        return self._get("/runs", state=state, limit=limit, page=page)

    def newest_runs(self, *, state: str | None = None, limit: int = 50) -> Iterator[Json]:
        """The caller's newest runs, newest first, page after page until ``limit``."""
        page = None
        while limit > 0:
            answer = self.runs(state=state, limit=min(limit, PAGE), page=page)
            yield from answer["items"][:limit]
            limit -= len(answer["items"])
            page = answer.get("next")
            if not page:
                return

    def run(self, run_id: str) -> Json:
        """The whole record of a run."""
        return self._get(_run(run_id))

    def cancel(self, run_id: str, *, now: bool = False) -> Json:
        """Ask a run to stop (it may save a checkpoint first), or end it ``now``; a final run stays as it is."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json("POST", f"{_run(run_id)}/cancel", json={"now": now}, headers=headers)

    def pin(self, run_id: str, *, pinned: bool = True) -> Json:
        """Keep a run until its owner deletes it, whatever retention says; or no longer."""
        return self._json("PUT" if pinned else "DELETE", f"{_run(run_id)}/pin")

    def move(self, run_id: str, to: str | Mapping[str, str | int]) -> Json:
        """Change a waiting run's place among the caller's own.

        Parameters
        ----------
        to : str or mapping
            ``"first"``, ``"last"``, ``{"before": run}`` or ``{"priority": n}``.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json("POST", f"{_run(run_id)}/move", json={"to": to}, headers=headers)

    def remove(self, run_id: str) -> None:
        """Delete a final run and its files; `Conflict` for one that is not final, or is pinned."""
        self._transport.request("DELETE", _run(run_id))

    def log(self, run_id: str, *, offset: int = 0, limit: int = 65536, attempt: int | None = None) -> Json:
        """A piece of the log: ``{"attempt", "offset", "next", "size", "text", "end"}``; offset < 0 = from the end."""
        return self._get(f"{_run(run_id)}/log", offset=offset, limit=limit, attempt=attempt)

    def metrics(self, run_id: str, *, name: str | None = None) -> Json:
        """The curves of all metrics, thinned; or every point of one: ``{"points": [[step, value, time], …]}``."""
        return self._get(f"{_run(run_id)}/metrics", name=name, full=1 if name is not None else None)

    def artifacts(self, run_id: str) -> list[Json]:
        """What files the run left."""
        return self._items(f"{_run(run_id)}/artifacts")

    def artifact(self, run_id: str, path: str, folder: Path, *, sha256: str | None = None) -> Path:
        """Fetch a file of a run to ``folder/path``, whole or not at all; the path of the file.

        Raises
        ------
        RefusedInput
            ``path_escapes``: the artifact's path leads out of the folder.
        """
        target = safe_target(folder, path)
        url = f"{_run(run_id)}/artifacts/{_quoted(path)}"
        return download(lambda: self._transport.stream(url), target, sha256=sha256)

    def fetch(self, run_id: str, folder: Path, *, paths: Sequence[str] | None = None) -> list[Path]:
        """Fetch all files of a run, or only some, below a folder; of a path left by several attempts the newest.

        Raises
        ------
        NotFound
            ``unknown_artifact``: one of ``paths`` is not there; nothing is written then.
        """
        newest = {entry["path"]: entry for entry in sorted(self.artifacts(run_id), key=lambda entry: entry["attempt"])}
        missing = [path for path in paths or () if path not in newest]
        if missing:
            known = ", ".join(newest) or "none"
            raise NotFound(
                "unknown_artifact", f"The run {run_id} has no file {missing[0]!r}.", hint=f"It has: {known}."
            )
        wanted = newest if paths is None else paths
        return [self.artifact(run_id, path, folder, sha256=newest[path]["sha256"]) for path in wanted]

    def artifact_json(self, run_id: str, path: str) -> Any:
        """The content of a small JSON artifact."""
        return self._transport.json("GET", f"{_run(run_id)}/artifacts/{_quoted(path)}")

    def notebook(self, run_id: str) -> Json:
        """The executed notebook as it is now."""
        return self._get(f"{_run(run_id)}/notebook")

    def events(self, run_id: str | None = None, *, last_id: str | None = None, idle_s: float = 20.0) -> Iterator[Event]:
        """Changes of one run, or of all runs of the caller, for ever; reconnects where it was cut.

        Each new connection, and whatever else makes the client miss something, gives an ``open`` event: look at the run
        once, and miss nothing afterwards. After
        ``idle_s`` without a sign there is an ``idle`` event.

        Raises
        ------
        Unreachable
            The service was away for five minutes.
        """
        path = "/events" if run_id is None else f"{_run(run_id)}/events"
        deadline = time.monotonic() + AWAY_LIMIT_S
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            try:
                with self._transport.stream(path, headers=headers, read_timeout_s=idle_s) as response:
                    yield Event("open", {}, last_id)
                    for event in parse_events(response.iter_bytes()):
                        last_id = event.id or last_id
                        deadline = time.monotonic() + AWAY_LIMIT_S
                        yield Event("open", {}, last_id) if event.type == "resync" else event
            except httpx.ReadTimeout:
                yield Event("idle", {}, last_id)
            except httpx.TransportError:
                self.close()
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                yield Event("idle", {}, last_id)

    def models(self) -> list[Json]:
        """The newest version of each model of the caller."""
        return self._items("/models")

    def model(self, name: str) -> list[Json]:
        """All versions of a model, newest first."""
        return self._items(_model(name))

    def model_version(self, name: str, version: int) -> Json:
        """One version of a model."""
        return self._get(_version(name, version))

    def model_file(self, name: str, version: int, path: str, folder: Path, *, sha256: str | None = None) -> Path:
        """Fetch a file of a model package to ``folder/path``; refuses as `artifact`."""
        target = safe_target(folder, path)
        url = f"{_version(name, version)}/files/{_quoted(path)}"
        return download(lambda: self._transport.stream(url), target, sha256=sha256)

    def publish_model(
        self, name: str, card: Mapping[str, Any], files: Sequence[Mapping[str, Any]], *, run: str | None = None
    ) -> Json:
        """Make a new version of a model out of files that were put: ``{path, size_bytes, sha256}`` each."""
        body = {"name": name, "card": dict(card), "files": [dict(file) for file in files], "run": run}
        return self._json("POST", "/models", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})

    def remove_model(self, name: str, version: int) -> None:
        """Delete one version of a model and its files."""
        self._transport.request("DELETE", _version(name, version))

    def set_alias(self, name: str, alias: str, version: int) -> Json | None:
        """Let an alias (``production``) name this version from now on."""
        answer: Json | None = self._transport.json(
            "PUT", f"{_model(name)}/aliases/{_quoted_part(alias)}", json={"version": version}
        )
        return answer

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away; the version stays."""
        self._transport.request("DELETE", f"{_model(name)}/aliases/{_quoted_part(alias)}")

    def roots(self) -> list[Json]:
        """The named roots of data that the caller may browse."""
        return self._items("/roots")

    def root_list(self, root: str, path: str = "", *, limit: int = 200, page: str | None = None) -> Json:
        """One page of a folder of a root."""
        return self._get(f"/roots/{_quoted(root)}/list", path=path, limit=limit, page=page)

    def root_preview(self, root: str, path: str, **options: Any) -> Json:
        """A preview of a file of a root; options as in `atelier.data.preview`."""
        return self._get(f"/roots/{_quoted(root)}/preview", path=path, **options)

    def _get(self, path: str, /, **params: Any) -> Json:
        return self._json("GET", path, params=params)

    def _json(self, method: str, path: str, **options: Any) -> Json:
        answer: Json = self._transport.json(method, path, **options)
        return answer

    def _items(self, path: str) -> list[Json]:
        """All entries of a list, page after page."""
        items: list[Json] = []
        page = None
        while True:
            answer = self._get(path, page=page)
            items += answer["items"]
            page = answer.get("next")
            if not page:
                return items


def _plain(record: Any) -> Json:
    return record.model_dump(mode="json") if hasattr(record, "model_dump") else dict(record)


def _run(run_id: str) -> str:
    return f"/runs/{_quoted_part(run_id)}"


def _model(name: str) -> str:
    return f"/models/{_quoted_part(name)}"


def _version(name: str, version: int) -> str:
    return f"{_model(name)}/versions/{version}"


def _quoted(path: str) -> str:
    """A relative path as URL path; each part is quoted, so that none can be ``..`` for whoever reads the URL."""
    return "/".join(_quoted_part(part) for part in path.split("/"))


def _quoted_part(part: str) -> str:
    return quote(part, safe="").replace(".", "%2E") if part in {".", ".."} else quote(part, safe="")
