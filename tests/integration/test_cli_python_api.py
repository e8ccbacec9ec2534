"""The Python functions over the same service as the command line."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import atelier
from atelier.api import RunFailed, StillRunning, SubmitWarning
from atelier.errors import Conflict, NotFound, RefusedInput
from atelier.records import RunState
from tests.cli_driver import Terminal, notebook, terminal

pytestmark = pytest.mark.timeout(120)

WORK = '''
import time

import atelier

def add(a: int, b: int = 2):
    """Add."""
    return {"sum": a + b}

def fail():
    raise ValueError("no luck")

def train(epochs: int):
    job = atelier.current_run()
    for step in range(epochs):
        job.log(step=step, loss=1 / (step + 1), bad=float("nan"))
        job.progress(step + 1, total=epochs)
    with open("weights.bin", "wb") as file:
        file.write(b"w" * 1000)

def sleep(seconds: float):
    time.sleep(seconds)
'''


@pytest.fixture(scope="module")
def place() -> Iterator[Terminal]:
    with terminal() as made:
        made.write("work.py", WORK)
        made.write("note.ipynb", notebook("print(n * 2)", parameters="n = 1"))
        yield made


@pytest.fixture(autouse=True)
def _here(place: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.cwd)
    for name in ("ATELIER_HOME", "ATELIER_IMAGE", "PYTHONPATH"):
        monkeypatch.setenv(name, place.environ[name])
    monkeypatch.delenv("ATELIER_URL", raising=False)


def test_a_function_returns_its_result() -> None:
    run = atelier.submit("work:add", params={"a": 40})
    assert run.id.startswith("r-")
    assert run.params == {"a": 40}
    assert run.result(timeout_s=60) == {"sum": 42}
    assert run.state == "succeeded"
    assert run.state is RunState.SUCCEEDED
    assert len(run.attempts) == 1
    assert atelier.run(run.id) == run == atelier.run("last")
    assert run in atelier.runs()
    assert run.id in repr(atelier.runs())
    assert run.id in atelier.runs("succeeded")._repr_html_()
    assert run._repr_mimebundle_()["application/vnd.atelier.run+json"] == {"id": run.id}
    view = atelier.runs("succeeded")._repr_mimebundle_()
    assert view["application/vnd.atelier.runs+json"] == {"ids": None, "state": "succeeded"}
    assert run.id in view["text/plain"]


def test_a_failed_run_has_its_authors_traceback() -> None:
    run = atelier.submit("work:fail").wait(60)
    assert run.state == "failed"
    assert run.reason == "code_error"
    assert run.error
    assert run.error.kind == "ValueError"
    assert "atelier/" not in run.error.traceback
    with pytest.raises(RunFailed) as failed:
        run.result()
    assert 'raise ValueError("no luck")' in str(failed.value)
    assert failed.value._render_traceback_()[-1]
    assert "no luck" in repr(run)
    bundle = run._repr_mimebundle_()
    assert {"text/plain", "text/html"} <= set(bundle)
    assert "no luck" in bundle["text/plain"]


def test_metrics_progress_and_files(tmp_path: Path) -> None:
    run = atelier.submit("work:train", params={"epochs": 5}).wait(60)
    assert run.state == "succeeded", run
    frame = run.metrics()
    assert list(frame.columns) == ["name", "step", "value", "time"]
    loss = frame[frame["name"] == "loss"]
    assert loss["step"].tolist() == [0, 1, 2, 3, 4]
    assert loss["value"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert str(loss["time"].dt.tz) == "UTC"
    assert all(math.isnan(value) for value in frame[frame["name"] == "bad"]["value"])
    assert run.progress
    assert (run.progress.done, run.progress.total) == (5, 5)
    assert "weights.bin" in [entry.path for entry in run.artifacts]
    assert "weights.bin" in repr(run.artifacts)
    assert (tmp_path / "out/weights.bin") in run.fetch(tmp_path / "out")
    assert (tmp_path / "out/weights.bin").read_bytes() == b"w" * 1000
    assert run.fetch(tmp_path / "one", paths=["weights.bin"]) == [tmp_path / "one/weights.bin"]
    with pytest.raises(NotFound):
        run.fetch(tmp_path / "none", paths=["weights.bn"])


def test_a_notebook_is_read_back_with_its_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    run = atelier.submit(Path("note.ipynb"), {"n": 21})
    assert "42" in run.logs(follow=True)
    assert "42" in capsys.readouterr().out
    texts = json.dumps(run.notebook())
    assert "42\\n" in texts
    with pytest.raises(Conflict) as refused:
        run.result()
    assert refused.value.code == "no_result"


def test_waiting_ends_and_the_run_goes_on() -> None:
    run = atelier.submit("work:sleep", params={"seconds": 600})
    with pytest.raises(StillRunning) as waited:
        run.wait(timeout_s=0.5)
    assert isinstance(waited.value, TimeoutError)
    assert not run.state.is_final
    run.cancel(now=True)
    assert run.wait(60).state == "cancelled"
    assert run.cancel().state == "cancelled"
    assert run.pin().record.pinned
    assert atelier.run(run.id).record.pinned
    assert not run.unpin().record.pinned


def test_several_runs_are_waited_for() -> None:
    started = [atelier.submit("work:sleep", params={"seconds": seconds}) for seconds in (0.1, 0.3)]
    assert {run.id for run in atelier.runs(limit=2)} == {run.id for run in started}
    assert [run.state for run in atelier.runs(limit=2).wait(60)] == ["succeeded", "succeeded"]
    stuck = atelier.submit("work:sleep", params={"seconds": 600})
    with pytest.raises(StillRunning):
        atelier.runs(limit=2).wait(0.5)
    stuck.cancel(now=True).wait(60)


def test_the_catalog_shows_itself() -> None:
    catalog = atelier.catalog()
    assert catalog.machines
    assert "cpu-small" in repr(catalog)
    assert "cpu-small" in catalog._repr_html_()


def test_warnings_of_the_capture_are_shown_where_submit_was_called(place: Terminal) -> None:
    place.write("elsewhere.py", f"open({str(Path.home() / 'data.csv')!r})\n")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = atelier.submit("elsewhere.py")
    shown = [warning for warning in seen if issubclass(warning.category, SubmitWarning)]
    assert [str(warning.message) for warning in shown] == run.warnings
    assert shown
    assert shown[0].filename == __file__
    run.wait(60)


def test_what_is_not_there() -> None:
    with pytest.raises(NotFound):
        atelier.run("r-aaaaaaaaaa")
    with pytest.raises(RefusedInput):
        atelier.submit("nothing.ipynb")
    assert atelier.models() == []
    assert repr(atelier.models()) == "no models yet"
