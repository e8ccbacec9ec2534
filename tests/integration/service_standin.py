"""A small run service in memory, with scripted runs: what the server extension and the views are developed against."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import math
import random
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

PREFIX = "/services/atelier"
API = PREFIX + "/api/v1"
TRACE = """Traceback (most recent call last):
  File "train.ipynb", cell 4, line 7, in <module>
    history = fit(model, images, labels, epochs=EPOCHS)
  File "train.ipynb", cell 3, line 12, in fit
    loss = criterion(model(batch), target)
ValueError: Expected input batch_size (16) to match target batch_size (15)."""


def moment(seconds_ago: float = 0) -> str:
    then = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run(run_id: str, name: str, state: str, *, ago_s: float, **more: Any) -> dict[str, Any]:
    return {
        "id": run_id, "owner": "ann", "project": "ann", "name": name, "state": state, "desired": "finished",
        "spec": {"kind": "job", "work": {"kind": "notebook", "target": "train.ipynb", "folder": "."}, "bundle": "0" * 64,
                 "params": {"epochs": 30, "batch_size": 16, "name": "digits"}, "image": "pytorch", "python": None,
                 "machine": "cpu-small", "nodes": 1, "retries": 1, "timeout_s": None, "queue_timeout_s": None,
                 "stall_timeout_s": None, "name": name, "project": None, "data": []},
        "reason": None, "message": "", "hint": "", "image": "pytorch", "machine": "cpu-small", "queue_position": None,
        "progress": None, "attempts": [], "environment": {"image": "pytorch", "python": "3.11.7", "lock_sha256": "a" * 64,
                                                          "requirements_sha256": None},
        "source": {"git_revision": "4f1c2aa9be", "git_dirty": True, "root": None, "files": 7, "size_bytes": 48213, "warnings": []},
        "metrics": {}, "artifacts": 0, "warnings": [], "created_at": moment(ago_s), "queued_at": moment(ago_s),
        "started_at": None, "ended_at": None, "epoch": 1, "version": 1, **more,
    }  # fmt: skip


def attempt(n: int, state: str, *, ago_s: float, lasted_s: float | None, **more: Any) -> dict[str, Any]:
    return {"n": n, "state": state, "reason": None, "message": None, "exit_code": None, "error": None,
            "created_at": moment(ago_s), "started_at": moment(ago_s), "last_seen_at": moment(),
            "ended_at": None if lasted_s is None else moment(ago_s - lasted_s), "log_size_bytes": 0,
            "usage": {"cpu_percent": 187.0, "memory_bytes": 1.4e9}, **more}  # fmt: skip


class Service:
    """All state; each change goes to the event log."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, bytearray] = {}
        self.points: dict[str, dict[str, list[list[Any]]]] = {}
        self.files: dict[str, dict[str, tuple[bytes, dict[str, Any]]]] = {}
        self.events: list[tuple[int, str, str]] = []
        self.changed = asyncio.Event()
        self.seen_headers: dict[str, str] = {}
        self.uploads: dict[str, int] = {}
        self.keys: dict[str, str] = {}

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        self.events.append((len(self.events) + 1, kind, json.dumps(data)))
        self.changed.set()
        self.changed = asyncio.Event()

    def put(self, run: dict[str, Any]) -> None:
        self.runs[run["id"]] = run
        self.tell("run", run)

    def log(self, run_id: str, text: str) -> None:
        log = self.logs.setdefault(run_id, bytearray())
        log += text.encode()
        self.tell("log", {"run": run_id, "attempt": 1, "size": len(log)})

    def metric(self, run_id: str, step: int, values: dict[str, float | None]) -> None:
        points = self.points.setdefault(run_id, {})
        new = {name: [[step, value, time.time()]] for name, value in values.items()}
        for name, point in new.items():
            points.setdefault(name, []).extend(point)
        self.runs[run_id]["metrics"].update(values)
        self.tell("metrics", {"run": run_id, "last": values, "points": new})

    def artifact(self, run_id: str, path: str, content: bytes, kind: str = "written") -> None:
        record = {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "kind": kind,
                  "attempt": 1, "created_at": moment()}  # fmt: skip
        self.files.setdefault(run_id, {})[path] = (content, record)
        self.runs[run_id]["artifacts"] = len(self.files[run_id])
        self.tell("artifact", {"run": run_id, "artifact": record})


def fill(service: Service) -> None:
    """Runs in every state."""
    service.put(new_run("r-aaaaaaaaa2", "digits-cnn", "succeeded", ago_s=4000, started_at=moment(3990), ended_at=moment(3900),
                        message="The run is done.",
                        attempts=[attempt(1, "succeeded", ago_s=3990, lasted_s=90, exit_code=0)]))  # fmt: skip
    for step in range(200):
        fade = math.exp(-step / 40)
        noise = random.Random(step).uniform(-0.03, 0.03)
        service.metric("r-aaaaaaaaa2", step, {"loss": 2.3 * fade + 0.05 + noise * fade, "val_loss": 2.2 * fade + 0.14 + noise,
                       "accuracy": 1 - 0.9 * fade, "val_accuracy": 0.97 - 0.87 * fade + noise / 4, "learning_rate": 1e-3 * 0.98**step})  # fmt: skip
    service.log("r-aaaaaaaaa2", "".join(f"Epoch {n}/5 \x1b[32m{'━' * 20}\x1b[0m loss: {2.3 / n:.3f}\n" for n in range(1, 400)))
    for path, size, kind in (("confusion.png", 20182, "saved"), ("model.pt", 431201, "written"), ("out/history.csv", 1893, "written"),
                             ("checkpoints/step-00000005/weights.npz", 920133, "checkpoint"), ("page.html", 90, "written")):  # fmt: skip
        service.artifact("r-aaaaaaaaa2", path, b"<script>document.title='taken'</script>" if path == "page.html" else random.Random(path).randbytes(size), kind)
    failed = {"kind": "ValueError", "message": "Expected input batch_size (16) to match target batch_size (15).",
              "traceback": TRACE, "cell": 4, "file": "train.ipynb", "line": 7}  # fmt: skip
    service.put(new_run("r-bbbbbbbbb2", "text-lstm", "failed", ago_s=900, started_at=moment(890), ended_at=moment(870),
                        reason="code_error", message="The code raised an error.",
                        hint="Read the traceback in the log, mend the code and submit again.",
                        attempts=[attempt(1, "lost", ago_s=890, lasted_s=5, reason="agent_lost", message="The run's supervising process died."),
                                  attempt(2, "failed", ago_s=884, lasted_s=14, reason="code_error", exit_code=1, error=failed)]))  # fmt: skip
    service.log("r-bbbbbbbbb2", "loading…\r 10%\r 55%\r100%\nfit\n" + "\x1b[31m" + TRACE + "\x1b[0m\n")
    service.put(new_run("r-ccccccccc2", "big-model", "queued", ago_s=60, queue_position=3, machine="gpu-large",
                        reason="waits_for_accelerator", message="All accelerators of this kind are in use.", hint="Wait, or pick another machine."))  # fmt: skip
    service.put(new_run("r-ddddddddd2", "old-sweep", "cancelled", ago_s=90000, started_at=moment(89990), ended_at=moment(89000),
                        reason="cancelled_by_user", message="The run was cancelled.", hint="Submit again when you want it."))  # fmt: skip
    service.put(new_run("r-eeeeeeeee2", "night", "timed_out", ago_s=190000, started_at=moment(189990), ended_at=moment(100000),
                        reason="deadline", message="The run reached its time limit.", hint="Give a longer --timeout, or resume from the last checkpoint."))  # fmt: skip
    for n in range(24):
        service.put(new_run(f"r-f{'abcdefghijklmnopqrstuvwxyz'[n]}fffffff2", f"trial-{n}", "succeeded", ago_s=200000 + 1000 * n,
                            started_at=moment(200000 + 1000 * n), ended_at=moment(199000 + 1000 * n), metrics={"loss": 0.3 + n / 100}))  # fmt: skip


async def train(service: Service, run_id: str, *, epochs: int = 30, epoch_s: float = 1.0) -> None:
    """Plays a training run."""
    run = service.runs[run_id]
    await asyncio.sleep(0.5)
    run.update(state="starting", message="The machine is getting ready.", epoch=2)
    service.put(run)
    await asyncio.sleep(0.5)
    run.update(state="running", message="The run is going.", started_at=moment(), epoch=3,
               attempts=[attempt(1, "running", ago_s=0, lasted_s=None)])  # fmt: skip
    service.put(run)
    for step in range(1, epochs + 1):
        await asyncio.sleep(epoch_s)
        if run["desired"] == "cancelled":
            run.update(state="cancelled", reason="cancelled_by_user", message="The run was cancelled.", ended_at=moment(), epoch=4)
            run["attempts"][0].update(state="cancelled", ended_at=moment())
            service.put(run)
            return
        for part in range(0, 101, 20):
            service.log(run_id, f"\rEpoch {step}/{epochs}  {part:3d}% \x1b[36m{'█' * (part // 5):<20}\x1b[0m")
        fade = math.exp(-step / 8)
        values = {"loss": 2.3 * fade + random.random() * 0.05, "accuracy": 1 - 0.9 * fade, "val_loss": 2.3 * fade + 0.1,
                  "val_accuracy": 0.97 - 0.87 * fade}  # fmt: skip
        service.log(run_id, f"\nloss={values['loss']:.4f} accuracy={values['accuracy']:.3f}\n")
        service.metric(run_id, step, values)
        left_s = None if step < 2 else (epochs - step) * epoch_s
        run["progress"] = {"done": step, "total": epochs, "left_s": left_s, "at": moment()}
        service.put(run)
    service.artifact(run_id, "model.pt", b"0" * 4096)
    run.update(state="succeeded", message="The run is done.", ended_at=moment(), epoch=4)
    run["attempts"][0].update(state="succeeded", exit_code=0, ended_at=moment())
    service.put(run)


BATCHES = [{"batch": n, "dims": {}, "max_abs": a, "max_rel": r, "labels_equal": 1.0, "within": True}
           for n, a, r in ((1, 1.2e-7, 3.1e-6), (8, 2.4e-7, 5.0e-6), (64, 3.6e-7, 9.1e-6))]  # fmt: skip
REPORT = {"size_bytes": 431201, "files": ["onnx/model.onnx"], "batches": BATCHES, "verdict": "equal", "seconds": 2.1,
          "latency_ms": {"source": 0.61, "exported": 0.08, "batch": 1, "threads": 1},
          "latency_large_ms": {"source": 3.2, "exported": 2.2, "batch": 64, "threads": 1},
          "tolerance": {"abs": 1e-4, "rel": 1e-3}, "details": {}}  # fmt: skip
CARD = {
    "version": 1, "name": "digits", "framework": "pytorch", "frameworks": {"torch": "2.9.1"},
    "formats": {"onnx": REPORT, "pt2": {**REPORT, "files": ["pt2/model.pt2"], "size_bytes": 452001}},
    "signature": {"inputs": [{"name": "images", "dtype": "float32", "shape": ["batch", 1, 28, 28]}],
                  "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}]},
    "labels": [str(n) for n in range(10)], "metrics": {"accuracy": 0.972},
    "lineage": {"run": "r-aaaaaaaaa2", "git_revision": "4f1c2aa9be", "git_dirty": False, "datasets": []},
    "environment": {"python": "3.11.7", "packages": []},
}  # fmt: skip
MODEL = {
    "name": "digits", "version": 3, "owner": "ann", "project": "ann", "run": "r-aaaaaaaaa2", "aliases": ["production"],
    "card": CARD, "files": [{"path": "onnx/model.onnx", "size_bytes": 431201, "sha256": "b" * 64},
                            {"path": "torch/model.pt2", "size_bytes": 452001, "sha256": "c" * 64},
                            {"path": "model.json", "size_bytes": 2210, "sha256": "d" * 64}],
    "size_bytes": 885412, "created_at": moment(600),
}  # fmt: skip


def error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "detail": {}, "hint": ""}}, status)


def create_app(token: str) -> FastAPI:
    app, service = FastAPI(), Service()
    app.state.service = service
    fill(service)
    tasks: set[asyncio.Task[None]] = set()

    @app.middleware("http")
    async def check(request: Request, call_next: Any) -> Response:
        if request.url.path.startswith(API):
            service.seen_headers = dict(request.headers)
            if request.headers.get("authorization") != f"token {token}":
                return error(401, "unauthenticated", "No valid token.")
        answer: Response = await call_next(request)
        return answer

    @app.get(PREFIX + "/healthz")
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get(API + "/seen")
    def seen() -> dict[str, str]:
        return service.seen_headers

    @app.put(API + "/bundles/{sha256}")
    async def put_bundle(sha256: str, request: Request) -> dict[str, int]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return {"size": size}

    @app.get(API + "/catalog")
    def catalog() -> dict[str, Any]:
        return {"user": {"name": "ann", "owner": "ann", "groups": []}, "images": [], "machines": [], "roots": [], "limits": {}}

    @app.get(API + "/roots")
    def roots() -> dict[str, Any]:
        return {"items": [{"name": "samples", "title": "Samples", "writable": False}], "next": None}

    @app.post(API + "/runs")
    async def submit(request: Request, idempotency_key: str = Header("")) -> Response:
        body = await request.json()
        run_id = "r-" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz234567", k=10))
        service.put(new_run(run_id, body.get("name", "train"), "queued", ago_s=0, queue_position=1, message="The run waits for its turn."))
        task = asyncio.create_task(train(service, run_id, epochs=body.get("epochs", 30), epoch_s=body.get("epoch_s", 1.0)))
        tasks.add(task)
        return JSONResponse(service.runs[run_id], 201)

    @app.get(API + "/runs")
    def runs(state: str = "", limit: int = 20, page: int = 0) -> dict[str, Any]:
        found = sorted(service.runs.values(), key=lambda run: str(run["created_at"]), reverse=True)
        found = [run for run in found if not state or run["state"] == state]
        more = str(page + limit) if len(found) > page + limit else None
        return {"items": found[page : page + limit], "next": more}

    @app.get(API + "/runs/{run_id}")
    def run(run_id: str) -> Any:
        return service.runs.get(run_id) or error(404, "no_such_run", f"There is no run {run_id}.")

    @app.delete(API + "/runs/{run_id}")
    def remove(run_id: str) -> Response:
        service.runs.pop(run_id, None)
        service.tell("removed", {"run": run_id})
        return Response(status_code=204)

    @app.post(API + "/runs/{run_id}/cancel")
    def cancel(run_id: str) -> Any:
        service.runs[run_id].update(desired="cancelled")
        service.put(service.runs[run_id])
        return service.runs[run_id]

    @app.get(API + "/runs/{run_id}/log")
    def log(run_id: str, offset: int = 0, limit: int = 65536) -> dict[str, Any]:
        whole = bytes(service.logs.get(run_id, b""))
        start = max(0, len(whole) + offset) if offset < 0 else offset
        part = whole[start : start + limit]
        final = service.runs[run_id]["ended_at"] is not None
        return {"attempt": 1, "offset": start, "next": start + len(part), "size": len(whole),
                "text": part.decode(errors="replace"), "end": final and start + len(part) >= len(whole)}  # fmt: skip

    @app.get(API + "/runs/{run_id}/metrics")
    def metrics(run_id: str) -> dict[str, Any]:
        points = service.points.get(run_id, {})
        last = {name: dict(zip(("step", "value", "time"), found[-1], strict=True)) for name, found in points.items()}
        return {"names": {name: {"last": last[name], "points": found} for name, found in points.items()}}

    @app.get(API + "/runs/{run_id}/artifacts")
    def artifacts(run_id: str) -> dict[str, Any]:
        return {"items": [record for _, record in service.files.get(run_id, {}).values()]}

    @app.get(API + "/runs/{run_id}/artifacts/{path:path}")
    def artifact(run_id: str, path: str) -> Response:
        found = service.files.get(run_id, {}).get(path)
        if found is None:
            return error(404, "no_such_artifact", f"There is no artifact {path}.")
        kind = "text/html" if path.endswith(".html") else "application/octet-stream"
        return Response(found[0], media_type=kind, headers={"Set-Cookie": "stolen=1", "Access-Control-Allow-Origin": "*"})

    @app.get(API + "/runs/{run_id}/notebook")
    def notebook(run_id: str) -> Response:
        cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"executed as {run_id}"}
        book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        return Response(json.dumps(book), media_type="application/x-ipynb+json")

    @app.get(API + "/models/{name}")
    def versions(name: str) -> Any:
        return {"items": [MODEL]} if name == "digits" else error(404, "no_such_model", f"There is no model {name}.")

    @app.get(API + "/models/{name}/versions/{version}")
    def version(name: str, version: int) -> Any:
        return MODEL if (name, version) == ("digits", 3) else error(404, "no_such_model", "There is no such version.")

    @app.get(API + "/models/{name}/versions/{version}/archive")
    def archive(name: str, version: int) -> Response:
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as packed:
            packed.writestr("model.json", json.dumps(CARD))
        return Response(body.getvalue(), media_type="application/zip")

    @app.get(API + "/events")
    async def events(last_event_id: int | None = Header(None)) -> StreamingResponse:
        start = len(service.events) if last_event_id is None else last_event_id

        async def stream() -> Any:
            position = start
            yield ": hello\n\n"
            while True:
                changed = service.changed
                for number, kind, data in service.events[position:]:
                    position = number
                    yield f"id: {number}\nevent: {kind}\ndata: {data}\n\n"
                try:
                    await asyncio.wait_for(changed.wait(), 15)
                except TimeoutError:
                    yield ": still here\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--socket")
    parser.add_argument("--token-file", type=Path, required=True)
    given = parser.parse_args()
    where = {"uds": given.socket} if given.socket else {"host": "127.0.0.1", "port": given.port}
    uvicorn.run(create_app(given.token_file.read_text().strip()), log_level="warning", timeout_graceful_shutdown=1, **where)
