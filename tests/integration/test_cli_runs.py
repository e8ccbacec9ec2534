"""The command line over a real service and real agents: submit, watch, stop, fetch, delete."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.cli_driver import ATELIER, Terminal, notebook, terminal, wait_for

pytestmark = pytest.mark.timeout(120)

FAILS = "def inner(n):\n    return 1 / n\n\nprint('before')\ninner(0)\n"
SLEEPS = "import time\nprint('begun', flush=True)\ntime.sleep({})\nprint('ended', flush=True)\n"


@pytest.fixture(scope="module")
def there() -> Iterator[Terminal]:
    with terminal() as place:
        place.write("hello.py", "print('hello')\nopen('out.txt', 'w').write('kept')\n")
        place.write("fails.py", FAILS)
        place.write("short.py", SLEEPS.format(3))
        place.write("long.py", SLEEPS.format(600))
        yield place


def test_a_script_is_followed_to_its_end(there: Terminal) -> None:
    done = there.type("submit", "hello.py", "--follow", "--name", "first one")
    assert (done.code, done.out) == (0, "hello\n"), done
    assert "succeeded" in done.err
    shown = there.type("show", "last")
    assert shown.code == 0
    assert "first one" in shown.out
    assert "hello.py (script)" in shown.out
    listed = there.type("runs")
    assert listed.out.splitlines()[0].split() == [
        "run",
        "name",
        "state",
        "progress",
        "submitted",
        "took",
        "image",
        "machine",
    ]
    assert "first one" in listed.out


def test_each_command_gives_one_document(there: Terminal) -> None:
    limits = ("--timeout", "2h", "--queue-timeout", "1d", "--stall-timeout", "30m")
    record = there.json("submit", "hello.py", "--wait", *limits)
    assert record["state"] == "succeeded"
    assert [record["spec"][f"{name}_s"] for name in ("timeout", "queue_timeout", "stall_timeout")] == [
        7200,
        86400,
        1800,
    ]
    run_id = record["id"]
    assert there.json("show", run_id)["id"] == run_id
    assert there.json("logs", run_id) == {"run": run_id, "attempt": 1, "text": "hello\n"}
    assert there.json("logs", run_id, "-f")["text"] == "hello\n"
    assert run_id in [entry["id"] for entry in there.json("runs", "--state", "succeeded")["items"]]
    assert there.json("cancel", run_id)["state"] == "succeeded"
    fetched = there.json("fetch", run_id, "-o", "fetched")
    assert (fetched["run"], fetched["folder"]) == (run_id, "fetched")
    assert "fetched/out.txt" in fetched["files"]
    assert (there.cwd / "fetched/out.txt").read_text() == "kept"
    assert there.json("rm", run_id) == {"removed": run_id}
    assert there.type("show", run_id).code == 3


def test_failed_code_shows_its_own_traceback_and_nothing_of_ours(there: Terminal) -> None:
    done = there.type("submit", "fails.py", "--wait")
    assert done.code == 1, done
    assert "failed" in done.err
    assert "ZeroDivisionError: division by zero" in done.err
    shown = there.type("show", "last").out
    assert "fails.py" in shown
    assert "ZeroDivisionError: division by zero" in shown
    assert "line 2, in inner" in shown
    assert "atelier/" not in shown.replace("atelier fetch", "")
    assert there.type("submit", "fails.py", "--follow").code == 1
    log = there.type("logs", "last").out
    assert log.startswith("before\n")
    assert "ZeroDivisionError" in log


def test_a_notebook_gets_its_parameters_by_type(there: Terminal) -> None:
    there.write(
        "train.ipynb", notebook("print(repr((epochs, word, sizes)))", parameters="epochs = 1\nword = 'a'\nsizes = [1]")
    )
    there.write("params.yaml", "epochs: 2\nword: from file\n")
    done = there.type("submit", "train.ipynb", "-f", "params.yaml", "-p", "word", "7", "-p", "sizes", "[3]", "--follow")
    assert done.code == 0, done
    assert "(2, '7', [3])" in done.out


def test_a_dry_run_shows_what_would_go_and_sends_nothing(there: Terminal) -> None:
    before = len(there.json("runs", "--limit", "200")["items"])
    told = there.json("submit", "train.ipynb", "--dry-run", "-p", "epochs", "3")
    assert told["work"]["target"] == "train.ipynb"
    assert told["params"] == {"epochs": 3}
    assert [entry["name"] for entry in told["parameters"]] == ["epochs", "word", "sizes"]
    assert "train.ipynb" in [file["path"] for file in told["files"]]
    assert told["size_bytes"] == sum(file["size_bytes"] for file in told["files"])
    assert "nothing was sent" in there.type("submit", "train.ipynb", "--dry-run").out
    assert len(there.json("runs", "--limit", "200")["items"]) == before


def test_ctrl_c_leaves_the_run_alone_and_says_how_to_follow_it(there: Terminal) -> None:
    with there.begin("submit", "short.py", "--follow") as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    run_id = there.json("runs", "--limit", "1")["items"][0]["id"]
    assert f"atelier logs -f {run_id}" in err
    assert "Traceback" not in err
    followed = there.type("logs", "-f", run_id)
    assert (followed.code, followed.out) == (0, "begun\nended\n")


def test_a_script_named_like_an_option_runs(there: Terminal) -> None:
    there.write("-c.py", "import sys\nprint(sys.argv)\n")
    for words in (["./-c.py", "--follow"], ["--follow", "--", "-c.py"]):
        done = there.type("submit", *words)
        assert (done.code, done.out) == (0, "['./-c.py']\n"), done
    refused = there.type("submit", "-c.py")
    assert refused.code == 2
    assert "given as ./-name" in refused.err


STEERING = r"""print("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2Jend", flush=True)
raise SystemExit("\x1b]52;c;aGk=\x07sad")
"""


def test_a_log_colours_a_terminal_and_steers_nothing(there: Terminal) -> None:
    there.write("loud.py", STEERING)
    there.type("submit", "loud.py", "--wait")
    piped = there.type("logs", "last")
    assert piped.out == "red end\nsad\n"
    assert "\x1b]" in there.json("logs", "last")["text"], "the document has what was written"
    assert "\x1b" not in there.type("show", "last").out

    at_terminal = _typed_at_a_terminal(there, "logs", "last")
    assert at_terminal == "\x1b[31mred\x1b[0m end\r\nsad\r\n"


def _typed_at_a_terminal(there: Terminal, *words: str) -> str:
    """What a command writes to a terminal of its own."""
    ours, theirs = os.openpty()
    environ = {name: value for name, value in there.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen([*ATELIER, *words], cwd=there.cwd, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal whose other side was closed
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


TRIES_AGAIN = """import os, signal, sys
import atelier
job = atelier.current_run()
print("attempt", job.attempt, flush=True)
if job.attempt == 1:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_logs_of_all_attempts_are_shown_or_of_one(there: Terminal) -> None:
    there.write("again.py", TRIES_AGAIN)
    assert there.type("submit", "again.py", "--retries", "1", "--wait").code == 0
    shown, followed = there.type("logs", "last"), there.type("logs", "last", "-f")
    assert shown.out == followed.out == "attempt 1\nattempt 2\n"
    assert shown.err == "--- attempt 1 ---\n--- attempt 2 ---\n"
    assert "--- attempt 2 ---\n" in followed.err
    one = there.type("logs", "last", "--attempt", "1")
    assert (one.out, one.err) == ("attempt 1\n", "")
    assert there.type("logs", "last", "-f", "--attempt", "2").out == "attempt 2\n"
    assert there.type("logs", "last", "--attempt", "3").code != 0
    assert there.json("logs", "last")["text"] == "attempt 1\nattempt 2\n"


def test_a_log_is_followed_while_it_grows(there: Terminal) -> None:
    there.type("submit", "short.py")
    with there.begin("logs", "last", "-f") as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        assert process.stdout.readline() == "ended\n"
        assert time.monotonic() - begun > 1, "the first line came before the second was written"
        assert process.wait(30) == 0
        assert process.stderr
        assert "succeeded" in process.stderr.read()


@pytest.mark.parametrize("now", [[], ["--now"]])
def test_a_run_is_cancelled(there: Terminal, now: list[str]) -> None:
    run_id = there.json("submit", "long.py")["id"]
    wait_for(lambda: there.json("logs", run_id)["text"] == "begun\n", "the run's first line")
    refused = there.type("rm", run_id)
    assert refused.code == 1, "a run that is not final stays"
    assert refused.err.startswith("error[")
    assert there.type("cancel", run_id, *now).code == 0
    ended = there.type("logs", "-f", run_id)
    assert ended.code == 1
    record = there.json("show", run_id)
    assert (record["state"], record["reason"]) == ("cancelled", "cancelled_by_user")
    assert there.type("rm", run_id).code == 0


def test_a_run_is_found_by_a_beginning_of_its_id(there: Terminal) -> None:
    run_id = there.json("runs", "--limit", "1")["items"][0]["id"]
    for text in (run_id[:9], run_id[2:9], run_id.upper(), "last"):
        assert there.json("show", text)["id"] == run_id


def test_what_is_not_there_is_3_with_the_nearest(there: Terminal) -> None:
    run_id = there.json("runs", "--limit", "1")["items"][0]["id"]
    wrong = run_id[:-1] + ("a" if run_id[-1] != "a" else "b")
    done = there.type("show", wrong)
    assert done.code == 3
    assert done.err.startswith("error[unknown_run]: ")
    assert f"Did you mean {run_id}" in done.err
    name = there.json("show", run_id)["name"]
    assert f"The newest of that name: {run_id}" in there.type("show", name).err
    for text in ("no-such-run", "../..", "r-", "ü 🙂"):
        assert there.type("logs", text).code == 3


def test_states_and_limits_are_checked(there: Terminal) -> None:
    done = there.type("runs", "--state", "runing", "--json")
    assert done.code == 2
    assert done.document["error"]["code"] == "unknown_state"
    assert done.document["error"]["detail"]["nearest"] == "running"
    assert there.type("runs", "--limit", "0").code == 2
    assert len(there.json("runs", "--limit", "2")["items"]) == 2


def test_many_runs_are_paged(there: Terminal) -> None:
    everything = there.json("runs", "--limit", "500")["items"]
    assert len({entry["id"] for entry in everything}) == len(everything) > 2


def test_data_of_home_and_of_the_service(there: Terminal) -> None:
    there.write("table.csv", "a,b\n1,2\n")
    place = Terminal(there.home, there.cwd, {"HOME": str(there.cwd)})
    assert "table.csv" in [entry["name"] for entry in place.json("data", "ls", "home")["items"]]
    assert "table.csv" in place.type("data", "ls", "home").out
    rows = place.json("data", "preview", "home/table.csv")["rows"]
    assert [[str(cell) for cell in row] for row in rows] == [["1", "2"]]
    assert place.type("data", "preview", "home/table.csv").code == 0
    roots = place.json("data", "ls")["items"]
    assert roots[0]["name"] == "home"
    assert place.type("data", "ls", "home/../etc").code == 2
    assert place.type("data", "ls", "nowhere/x").code == 2
    assert place.type("data", "preview", "home/nothing.csv").code == 3


def test_the_doctor_finds_the_service(there: Terminal) -> None:
    told = json.loads(there.type("doctor", "--json").out)
    service = next(check for check in told["checks"] if check["name"] == "service")
    assert service["status"] == "ok"
    assert str(there.home) in service["text"]


def test_output_that_nobody_reads_is_no_traceback(there: Terminal) -> None:
    with there.begin("runs") as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        err = process.stderr.read()
        process.wait(20)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
