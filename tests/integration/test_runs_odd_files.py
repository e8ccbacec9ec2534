"""Files that a run leaves and that can't be kept as they are: each is kept under a name of its own, or named."""

from __future__ import annotations

from pathlib import Path

from tests.service_driver import Service, write


def test_names_that_are_no_text_are_kept_apart(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import os, atelier
            from atelier.errors import RefusedInput
            names = (b"bad\\xff.txt", b"bad\\xfe.txt", "bad\\ufffd.txt".encode(), b"bad%FF.txt")
            os.mkdir("taken"); os.mkdir(b"fold\\xe9")
            for folder in (b"", b"taken/", b"fold\\xe9/"):
                for name in names:
                    with open(folder + name, "wb") as file:
                        file.write(folder + name)
            job = atelier.current_run()
            os.rename("taken", "venv")  # so that only what is saved of it is kept
            job.save("venv", name="saved")
            os.mkdir("weights")
            open(b"weights/\\xff", "w").close()
            try:
                job.checkpoint("weights", step=1)
            except RefusedInput as problem:
                print(problem.code)
        """,
    )
    run = service.finish(work)
    assert run.state == "succeeded", service.log(run.id)
    names = {
        "bad%FF.txt": b"bad%FF.txt",
        "bad%FF.txt%": b"bad\xff.txt",
        "bad%FE.txt": b"bad\xfe.txt",
        "bad\ufffd.txt": "bad\ufffd.txt".encode(),
    }
    kept = service.artifacts(run.id)
    assert {*names, *(f"fold%E9/{name}" for name in names), "weights/%FF"} == {
        name for name in kept if kept[name]["kind"] == "written"
    }
    for name, content in names.items():
        assert service.content(run.id, name.replace("%", "%25")) == content
    saved = {name.removeprefix("saved/"): name for name in kept if name.startswith("saved/")}
    contents = [service.content(run.id, name.replace("%", "%25")) for name in saved.values()]
    assert sorted(contents) == sorted(b"taken/" + content for content in names.values())
    assert set(saved) == set(names)
    assert "bad_name" in service.log(run.id)
    (told,) = run.warnings
    assert told.startswith("1 thing that the run left was not kept: venv (")
    assert not (service.home / "blobs/runs" / run.id / "checkpoints").exists()


def test_what_is_no_plain_file_or_lies_too_deep_is_named(service: Service, tmp_path: Path) -> None:
    work = write(
        tmp_path,
        train__py="""
            import os, socket
            open("file.txt", "w").close()
            os.mkfifo("a-pipe")
            os.symlink("file.txt", "b-link")
            here = os.getcwd()
            with socket.socket(socket.AF_UNIX) as held:
                held.bind("c-socket")
            os.mkdir("deep"); os.chdir("deep")
            for _ in range(60):
                os.mkdir("d" * 200); os.chdir("d" * 200)
            open("bottom", "w").close()
            os.chdir(here)
            for n in range(4):
                os.symlink("nowhere", f"more-{n}")
        """,
    )
    run = service.finish(work)
    assert run.state == "succeeded", service.log(run.id)
    assert set(service.artifacts(run.id)) == {"file.txt"}
    (told,) = run.warnings
    assert told.startswith(
        "8 things that the run left were not kept: a-pipe (a pipe), b-link (a link), c-socket (a socket), deep/d"
    )
    assert "d (its path has more than 1024 bytes), more-0 (a link) and 3 more." in told
    assert len(told) < 400
