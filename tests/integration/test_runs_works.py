"""Each kind of work runs, gets its parameters, and fails with its author's own traceback and nothing of ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest

from atelier.errors import RefusedInput
from atelier.local.threads import NAMES
from atelier.records import Run
from tests.cli_driver import notebook
from tests.service_driver import Service, write

OURS = ("atelier/", "atelier.", "nbclient", "ipykernel", "importlib", "run/attempts", "/work/")
"""What the log of a failed run must not show: our package, the machinery around it, our folders."""

PARAMETERS = {
    "epochs": 3,
    "rate": 0.5,
    "title": 'naïve "quoted" \'n {x} \\ \n🙂',
    "shuffle": False,
    "sizes": [1, 2],
    "more": {"a": None},
}


def assert_only_own_words(text: str) -> None:
    assert [word for word in OURS if word in text] == [], text


# -- scripts ------------------------------------------------------------------------------------------------------
def test_a_script_runs(service: Service, tmp_path: Path) -> None:
    work = write(tmp_path, train__py="print('hello', 6 * 7)")
    run = service.finish(work)
    assert (run.state, run.reason, run.message, run.name) == ("succeeded", None, "Done.", "train")
    assert (run.attempts[0].exit_code, run.attempts[0].state) == (0, "succeeded")
    assert run.created_at <= run.queued_at <= run.started_at <= run.ended_at
    assert run.environment is not None
    assert run.environment.image == "plain"
    assert service.log(run.id) == "hello 42\n"


def test_a_script_stands_in_its_folder_and_imports_its_neighbours(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import os, sys, pathlib, neighbour
            from package.inner import VALUE
            assert sys.path[0] == os.getcwd(), sys.path
            print(neighbour.WORD, VALUE, pathlib.Path("table.csv").read_text(), __name__)
        """,
        neighbour__py="WORD = 'beside'",
        table__csv="1,2",
    )
    write(tmp_path / "package", __init____py="", inner__py="from package import __name__ as VALUE")
    run = service.finish(work)
    assert service.log(run.id) == "beside package 1,2 __main__\n"


def test_a_script_gets_its_parameters_as_arguments(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import argparse, json
            parser = argparse.ArgumentParser()
            parser.add_argument("--epochs", type=int, default=1)
            parser.add_argument("--rate", type=float, default=0.1)
            parser.add_argument("--title", default="")
            parser.add_argument("--shuffle", action="store_true")
            print(json.dumps(vars(parser.parse_args())))
        """,
    )
    run = service.finish(work, {"epochs": 3, "rate": 0.5, "title": '-- "quoted" \'n $HOME;\n🙂', "shuffle": True})
    told = json.loads(service.log(run.id))
    assert told == {"epochs": 3, "rate": 0.5, "title": '-- "quoted" \'n $HOME;\n🙂', "shuffle": True}


def test_code_in_a_run_knows_its_parameters(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import atelier, json, os
            job = atelier.current_run()
            print(json.dumps([job.id, job.in_run, job.params, job.attempt, job.resume_from]))
            assert "ATELIER_RESUME_FROM" not in os.environ
        """,
    )
    run = service.finish(work, PARAMETERS)
    assert json.loads(service.log(run.id)) == [run.id, True, PARAMETERS, 1, None]


def test_code_in_a_run_is_told_that_it_can_not_call_the_service(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import atelier
            for call in (atelier.runs, atelier.catalog, lambda: atelier.submit("train.py")):
                try:
                    call()
                except atelier.errors.NotAllowed as refused:
                    print(refused.code)
        """,
    )
    run = service.finish(work)
    assert (run.state, service.log(run.id)) == ("succeeded", "inside_run\n" * 3), service.log(run.id)


def test_a_failed_script_shows_its_own_traceback(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import helper_of_mine
            print("before")
            helper_of_mine.divide(0)
        """,
        helper_of_mine__py="def divide(by):\n    return 1 / by\n",
    )
    run = service.finish(work)
    assert (run.state, run.reason) == ("failed", "code_error")
    assert run.message == "ZeroDivisionError: division by zero (helper_of_mine.py, line 2)"
    error = run.attempts[0].error
    assert error is not None
    assert (error.kind, error.message) == ("ZeroDivisionError", "division by zero")
    assert (error.file, error.line) == ("helper_of_mine.py", 2)
    assert 'File "train.py", line 4, in <module>' in error.traceback
    assert_only_own_words(error.traceback)
    assert run.hint
    assert run.attempts[0].exit_code == 1


def test_a_script_that_exits_with_a_number_tells_it(service: Service, tmp_path: Path) -> None:
    run = service.finish(write(tmp_path, train__py="import sys; print('so long'); sys.exit(7)"))
    assert (run.state, run.reason, run.message) == ("failed", "code_error", "The code ended with exit code 7.")
    assert run.attempts[0].exit_code == 7
    assert run.attempts[0].error is None


def test_the_last_traceback_counts(service: Service, tmp_path: Path) -> None:
    """A chained error, after one that the code has caught and printed."""
    work = write(
        tmp_path,
        train__py="""
            import traceback
            try:
                int("x")
            except ValueError:
                traceback.print_exc()
            try:
                {}["key"]
            except KeyError as problem:
                raise RuntimeError("several\\nlines: here") from problem
        """,
    )
    run = service.finish(work)
    error = run.attempts[0].error
    assert error is not None
    assert (error.kind, error.message, error.line) == ("RuntimeError", "several\nlines: here", 10)
    assert run.message == "RuntimeError: several (train.py, line 10)"
    assert_only_own_words(error.traceback)


# -- modules and functions ----------------------------------------------------------------------------------------
def test_a_module_runs_by_its_name(service: Service, tmp_path: Path) -> None:
    write(
        tmp_path / "lab",
        __init____py="NAME = 'lab'",
        train__py="from lab import NAME\nprint(NAME, __name__, __package__)",
    )
    run = service.finish("lab.train", cwd=tmp_path)
    assert run.state == "succeeded"
    assert service.log(run.id) == "lab __main__ lab\n"


def test_a_failed_module_shows_its_own_traceback(service: Service, tmp_path: Path) -> None:
    write(tmp_path / "lab", __init____py="", train__py="def go():\n    raise KeyError('lost')\ngo()")
    run = service.finish("lab.train", cwd=tmp_path)
    error = run.attempts[0].error
    assert error is not None
    assert (run.reason, error.kind, error.file, error.line) == ("code_error", "KeyError", "lab/train.py", 2)
    assert_only_own_words(error.traceback)


def test_a_function_returns_its_result(service: Service, tmp_path: Path) -> None:
    write(
        tmp_path,
        lab__py="""
            def train(epochs: int, rate: float = 0.1, **more):
                print("training")
                return {"epochs": epochs, "rate": rate, "more": more}
        """,
    )
    run = service.finish("lab:train", {"epochs": 3, "extra": [1, None]}, cwd=tmp_path)
    assert run.state == "succeeded"
    result = json.loads(service.content(run.id, "result.json"))
    assert result == {"epochs": 3, "rate": 0.1, "more": {"extra": [1, None]}}
    assert service.log(run.id) == "training\n"
    assert service.artifacts(run.id)["result.json"]["kind"] == "saved"


def test_a_result_that_is_no_json_is_said_and_lost(service: Service, tmp_path: Path) -> None:
    write(tmp_path, lab__py="def train():\n    return object()\n")
    run = service.finish("lab:train", cwd=tmp_path)
    assert run.state == "succeeded"
    assert "not JSON" in service.log(run.id)
    assert "result.json" not in service.artifacts(run.id)


def test_a_failed_function_shows_its_own_traceback(service: Service, tmp_path: Path) -> None:
    write(tmp_path, lab__py="def train(x: int):\n    inner(x)\n\n\ndef inner(x):\n    raise ValueError(f'not {x}')\n")
    run = service.finish("lab:train", {"x": 3}, cwd=tmp_path)
    error = run.attempts[0].error
    assert error is not None
    assert (run.message, error.file, error.line) == ("ValueError: not 3 (lab.py, line 6)", "lab.py", 6)
    assert error.traceback.startswith('Traceback (most recent call last):\n  File "lab.py", line 2, in train')
    assert_only_own_words(error.traceback)


def test_an_async_function_is_run_to_its_end(service: Service, tmp_path: Path) -> None:
    code = "import asyncio\nasync def train(x: int):\n    await asyncio.sleep(0)\n    return await inner(x)\n"
    code += "async def inner(x):\n    if x == 3:\n        raise ValueError(f'not {x}')\n    return x\n"
    write(tmp_path, lab__py=code)
    run = service.finish("lab:train", {"x": 2}, cwd=tmp_path)
    assert (run.state, service.content(run.id, "result.json")) == ("succeeded", b"2")
    run = service.finish("lab:train", {"x": 3}, cwd=tmp_path)
    error = run.attempts[0].error
    assert error is not None
    assert (run.reason, error.kind, error.file, error.line) == ("code_error", "ValueError", "lab.py", 7)
    assert error.traceback.startswith('Traceback (most recent call last):\n  File "lab.py", line 4, in train')
    assert_only_own_words(error.traceback)


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_generator_of_which_no_line_ran_has_not_succeeded(service: Service, tmp_path: Path, word: str) -> None:
    code = f"def same(of):\n    return of\n@same\n{word} train():\n    yield print('ran')\n    raise ValueError\n"
    write(tmp_path, lab__py=code)
    run = service.finish("lab:train", cwd=tmp_path)
    assert (run.state, run.reason) == ("failed", "code_error")
    assert "train() gave a generator, and none of its lines has run" in run.message


def test_a_module_that_fails_on_import_shows_its_own_traceback(service: Service, tmp_path: Path) -> None:
    write(tmp_path, lab__py="import beside\ndef train():\n    pass\n", beside__py="raise OSError('no luck')")
    run = service.finish("lab:train", cwd=tmp_path)
    error = run.attempts[0].error
    assert error is not None
    assert (error.kind, error.file, error.line) == ("OSError", "beside.py", 1)
    assert_only_own_words(error.traceback)


# -- notebooks ----------------------------------------------------------------------------------------------------
CELLS = (
    "import json, os\nfrom beside import WORD",
    "print(json.dumps([epochs, rate, title, shuffle, sizes, more]))",
    "print(WORD, sorted(name for name in os.listdir('.') if name[0] != '_'))\n{'shown': 1}",
)
DEFAULTS = "epochs = 1\nrate = 0.1\ntitle = ''\nshuffle = True\nsizes = []\nmore = {}"


@pytest.fixture(scope="module")
def executed(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A notebook that ran with other parameters than its own."""
    folder = tmp_path_factory.mktemp("nb")
    work = write(folder, train__ipynb=notebook(*CELLS, parameters=DEFAULTS), beside__py="WORD = 'beside'")
    return service.finish(work, PARAMETERS)


def test_a_notebook_runs(service: Service, executed: Run) -> None:
    assert (executed.state, executed.attempts[0].exit_code) == ("succeeded", 0)
    assert executed.progress is not None
    assert (executed.progress.done, executed.progress.total, executed.progress.left_s) == (4, 4, None)
    assert "beside ['beside.py', 'train.ipynb']\n{'shown': 1}\n" in service.log(executed.id)


def test_a_notebook_gets_its_parameters(service: Service, executed: Run) -> None:
    told = json.loads(service.log(executed.id).splitlines()[0])
    assert told == list(PARAMETERS.values())


def test_the_executed_notebook_is_kept_whole(service: Service, executed: Run) -> None:
    answer = service.get(f"/runs/{executed.id}/notebook")
    assert answer.headers["content-type"].startswith("application/x-ipynb+json")
    made = nbformat.reads(answer.text, as_version=4)
    nbformat.validate(made)
    assert [cell.source for cell in made.cells if "injected-parameters" not in cell.metadata.tags] == [DEFAULTS, *CELLS]
    assert [cell.execution_count for cell in made.cells] == [1, 2, 3, 4, 5]
    assert made.cells[1].metadata.tags == ["injected-parameters"]
    assert made.cells[-1].outputs[-1].data["text/plain"] == "{'shown': 1}"
    kept = service.artifacts(executed.id)["train.ipynb"]
    assert kept["kind"] == "notebook"
    assert service.content(executed.id, "train.ipynb") == answer.content


def test_a_burst_of_output_is_whole(service: Service, tmp_path: Path) -> None:
    """More messages at once than a socket of the kernel holds: printed and flushed, and displayed."""
    cells = ("for i in range(6000): print(i, flush=True)", "for i in range(3000): display(i)", "print('end')")
    run = service.finish(write(tmp_path, train__ipynb=notebook(*cells)))
    assert service.log(run.id).split() == [*map(str, range(6000)), *map(str, range(3000)), "end"]
    made = nbformat.reads(service.get(f"/runs/{run.id}/notebook").text, as_version=4)
    assert "".join(output.text for output in made.cells[0].outputs).split() == [*map(str, range(6000))]
    assert [output.data["text/plain"] for output in made.cells[1].outputs] == [*map(str, range(3000))]


def test_a_failed_notebook_names_the_cell(service: Service, tmp_path: Path) -> None:
    cells = ("ratio = 1", "def divide(by):\n    return ratio / by", "print('so far')\ndivide(0)", "print('never')")
    run = service.finish(write(tmp_path, train__ipynb=notebook(*cells, parameters="n = 1")), {"n": 2})
    assert (run.state, run.reason) == ("failed", "code_error")
    assert run.message == "ZeroDivisionError: division by zero (cell 4, line 2)"
    error = run.attempts[0].error
    assert error is not None
    assert (error.kind, error.cell, error.line) == ("ZeroDivisionError", 4, 2)
    assert "divide(0)" in error.traceback
    assert "\x1b" not in error.traceback
    assert_only_own_words(error.traceback)
    log = service.log(run.id)
    assert "so far" in log
    assert "never" not in log
    made = nbformat.reads(service.get(f"/runs/{run.id}/notebook").text, as_version=4)
    assert [len(cell.outputs) for cell in made.cells] == [0, 0, 0, 0, 3, 0], "the text, the error, and what to do"


# -- code is what it was at submit --------------------------------------------------------------------------------
def test_editing_after_submit_changes_nothing(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import pathlib, time, atelier
            while not atelier.current_run().should_stop() and not pathlib.Path(GATE).exists():
                time.sleep(0.05)
            import beside
            print(beside.WORD)
        """.replace("GATE", repr(str(tmp_path / "gate"))),
        beside__py="WORD = 'as submitted'",
    )
    run_id = service.submit(work)
    service.wait(run_id, "running")
    (tmp_path / "beside.py").write_text("WORD = 'edited'")
    work.write_text("print('edited')")
    (tmp_path / "gate").touch()
    assert service.wait(run_id).state == "succeeded"
    assert service.log(run_id) == "as submitted\n"


# -- what is wrong is refused before anything is stored -----------------------------------------------------------
@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"epoch": 3}, "unknown_parameter", "epochs"),
        ({"epochs": "many"}, "wrong_type", "epochs"),
        ({"x = __import__('os'); y": 1}, "not_identifier", "__import__"),
    ],
)
def test_wrong_parameters_are_refused(
    service: Service, tmp_path: Path, params: dict[str, object], code: str, words: str
) -> None:
    work = write(tmp_path, train__ipynb=notebook("print(epochs)", parameters="epochs = 1"))
    before = service.ids()
    with pytest.raises(RefusedInput, match=words) as caught:
        service.submit(work, params)
    assert caught.value.code == code
    assert service.ids() == before


def test_a_parameter_that_json_can_not_carry_is_refused(service: Service, tmp_path: Path) -> None:
    """NaN in the body: Python's own JSON writes it, JSON has no such thing, and a run must never start with it."""
    work = write(tmp_path, train__ipynb=notebook("print(rate)", parameters="rate = 0.1"))
    run = service.finish(work, {"rate": 0.5})
    body = json.dumps(run.spec.model_dump(mode="json") | {"params": {"rate": float("nan")}})
    assert "NaN" in body
    with service.http as http:
        answer = http.post("/services/atelier/api/v1/runs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] in {"not_json", "bad_request"}


@pytest.mark.parametrize(("machine", "cores"), [("tiny", 1), ("whole", len(os.sched_getaffinity(0)))])
def test_numerical_libraries_take_what_the_machine_has(
    service: Service, tmp_path: Path, machine: str, cores: int
) -> None:
    script = write(tmp_path, train__py=f"import os\nprint(*[os.environ[name] for name in {NAMES}])")
    run = service.finish(script, machine=machine, patience_s=60)
    assert service.log(run.id).split() == [str(cores)] * len(NAMES)
