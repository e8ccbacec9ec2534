"""Works that tell a known sequence, and what must be there of it whatever has died meanwhile."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.errors import NotFound
from atelier.records import Run
from atelier.storage import RunPaths
from tests.cli_driver import notebook
from tests.service_driver import Service, write

STEPS = 3
TELL = f"""
import json, os, pathlib, time, atelier
job, witness = atelier.current_run(), os.open(WITNESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def saw(what):
    os.write(witness, f"{{job.attempt}} {{what}}\\n".encode())

pathlib.Path("package").mkdir(exist_ok=True)
pathlib.Path("package/model.json").write_text(json.dumps({{"name": "tiny"}}))
pathlib.Path("package/weights.csv").write_text("0.5\\n" * 500)
for step in range({STEPS}):
    print(f"line {{step:06d}} " + "x" * 50, flush=True)
    job.log(step=step, loss=step / 2)
    saw(f"metric {{step}}")
    pathlib.Path("state.txt").write_text(f"state {{step}}\\n" * 100)
    job.save("state.txt", name=f"saved-{{step}}.txt")
    saw(f"saved {{step}}")
    job.checkpoint("state.txt", step=step)
    saw(f"checkpoint {{step}}")
    job.progress(step + 1, total={STEPS})
    time.sleep(PAUSE_S)
published = job.add_model("tiny", "package")
"""
LOG = "".join(f"line {step:06d} {'x' * 50}\n" for step in range(STEPS))


def state(step: int) -> bytes:
    """The content of the file of a step."""
    return f"state {step}\n".encode() * 100


def script(folder: Path, *, pause_s: float = 0.1) -> Path:
    """A script that tells a line, a value, a file and a checkpoint in each step, and a model at its end."""
    return write(folder, train__py=_source(folder, pause_s))


def book(folder: Path, *, pause_s: float = 0.1) -> Path:
    """A notebook that does the same, in its second cell."""
    return write(folder, train__ipynb=notebook("begun = True", _source(folder, pause_s), "print('the end')"))


def _source(folder: Path, pause_s: float) -> str:
    return TELL.replace("WITNESS", repr(str(folder / "witness"))).replace("PAUSE_S", str(pause_s))


@dataclass(frozen=True)
class Evidence:
    """What the record holds of a run, and what its code has seen itself write."""

    run: Run
    logs: list[str]
    points: list[list[tuple[int, float]]]
    shown: list[list[Any]]
    files: dict[str, bytes]
    models: int
    seen: list[tuple[int, str]]

    def faults(self, unheard: Collection[int] = ()) -> Iterator[str]:
        """What is missing, doubled or different; attempts that are ``unheard`` may lack what they told."""
        yield from self._faults_of_logs()
        yield from self._faults_of_points(unheard)
        yield from self._faults_of_files(unheard)
        succeeded = self.run.state == "succeeded"
        if self.models > 1 or (succeeded and self.models != 1):
            yield f"{self.models} models were published"

    def _faults_of_logs(self) -> Iterator[str]:
        for attempt, log in zip(self.run.attempts, self.logs, strict=True):
            whole = LOG + ("the end\n" if self.run.spec.work.kind == "notebook" else "")
            if not (log == whole if attempt.state == "succeeded" else whole.startswith(log)):
                yield f"the log of attempt {attempt.n}, which {attempt.state}, is {log!r}"

    def _faults_of_points(self, unheard: Collection[int]) -> Iterator[str]:
        for attempt, points in zip(self.run.attempts, self.points, strict=True):
            told = [what for n, what in self.seen if n == attempt.n and n not in unheard and what.startswith("metric")]
            if points != [(step, step / 2) for step in range(len(points))] or len(points) < len(told):
                yield f"attempt {attempt.n} logged {len(told)} values, and there are {points}"
        steps = [point[0] for point in self.shown]
        if steps != list(range(len(steps))) or len(steps) < max(map(len, self.points), default=0):
            yield f"the curve has the steps {steps}, and the attempts told {self.points}"

    def _faults_of_files(self, unheard: Collection[int]) -> Iterator[str]:
        """What was saved before the last attempt, and by it, is there; the code's own files when it ended well."""
        saved = [what for n, what in self.seen if n not in unheard and what.startswith("saved")]
        wanted = {f"saved-{what.split()[1]}.txt" for what in saved}
        if self.run.state == "succeeded":
            wanted |= {"state.txt", "package/model.json", "package/weights.csv"}
        if missing := sorted(wanted - set(self.files)):
            yield f"these files are missing: {missing}"
        known = {f"saved-{step}.txt": state(step) for step in range(STEPS)}
        yield from (f"{name} is torn" for name, data in self.files.items() if known.get(name, data) != data)


def evidence(service: Service, run_id: str, folder: Path) -> Evidence:
    """All that there is to know of a run of `script` or `book` in that folder."""
    run = service.run(run_id)
    witness = folder / "witness"
    lines = witness.read_text().splitlines() if witness.exists() else []
    seen = [(int(n), what) for n, _, what in (line.partition(" ") for line in lines)]
    names = [name for name in service.artifacts(run_id) if not name.startswith("tensorboard/")]
    return Evidence(
        run,
        [service.log(run_id, attempt.n) for attempt in run.attempts],
        [_points(service.home / "blobs" / RunPaths(run_id).whole(attempt.n, "metrics")) for attempt in run.attempts],
        service.client.metrics(run_id, name="loss")["points"],
        {name: service.content(run_id, name) for name in names},
        sum(1 for model in _versions(service) if model["run"] == run_id),
        seen,
    )


def _points(stream: Path) -> list[tuple[int, float]]:
    """Steps and losses of an attempt, as they lie in the blob store."""
    told = [json.loads(line) for line in stream.read_text().splitlines()]
    return [(point["step"], point["values"]["loss"]) for point in told]


def _versions(service: Service) -> list[dict[str, Any]]:
    try:
        return service.client.model("tiny")
    except NotFound:
        return []
