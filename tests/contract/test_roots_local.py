"""A local root against links, races, odd files and sizes: what only a file system can do to a path."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.data.previews import preview
from atelier.data.roots import home_root, list_folder
from atelier.errors import AtelierError, NotAllowed, NotFound, RefusedInput

SECRET = "the secret outside"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    (tmp_path / "homework").mkdir()
    (tmp_path / "homework" / "secret.txt").write_text(SECRET)
    home = tmp_path / "home"
    (home / "data" / "deep").mkdir(parents=True)
    (home / "data" / "a.txt").write_text("inside")
    return home


def item(home: Path, name: str) -> dict:
    return next(entry for entry in list_folder(home_root(home))["items"] if entry["name"] == name)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("relative", "data/a.txt"),
        ("absolute", "{home}/data/a.txt"),
        ("up", "data/../data/deep/../a.txt"),
        ("chain", "relative"),
    ],
)
def test_links_inside_the_root_are_shown_as_links_and_followed(home: Path, link: str, target: str) -> None:
    (home / "relative").symlink_to("data/a.txt")
    if link != "relative":
        (home / link).symlink_to(target.format(home=home))
    shown = item(home, link)
    assert (shown["kind"], shown["link"], shown["size_bytes"]) == ("link", "file", 6)
    assert preview(home_root(home), link)["text"] == "inside"


def test_a_link_to_a_folder_inside_is_listed_through(home: Path) -> None:
    (home / "short").symlink_to(home / "data")
    assert (item(home, "short")["link"], item(home, "short")["type"]) == ("folder", "folder")
    assert [entry["name"] for entry in list_folder(home_root(home), "short")["items"]] == ["deep", "a.txt"]
    assert preview(home_root(home), "short/a.txt")["text"] == "inside"


@pytest.mark.parametrize(
    "target",
    [
        "../outside/secret.txt",
        "{top}/outside/secret.txt",
        "{top}/homework/secret.txt",
        "data/../../outside/secret.txt",
        "/etc/hostname",
    ],
)
def test_links_out_of_the_root_are_shown_and_refused(home: Path, target: str) -> None:
    (home / "out").symlink_to(target.format(top=home.parent))
    shown = item(home, "out")
    assert (shown["kind"], shown["link"]) == ("link", "outside")
    assert "out of this root" in shown["problem"]
    with pytest.raises(NotAllowed) as refused:
        preview(home_root(home), "out")
    assert refused.value.code == "outside_root"


def test_a_linked_folder_outside_is_neither_listed_nor_passed_through(home: Path) -> None:
    (home / "out").symlink_to("../outside")
    for ask, path in ((list_folder, "out"), (preview, "out/secret.txt")):
        with pytest.raises(NotAllowed) as refused:
            ask(home_root(home), path)
        assert refused.value.code == "outside_root"


def test_a_loop_of_links_ends(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    assert item(home, "a")["link"] == "broken"
    with pytest.raises(RefusedInput) as refused:
        preview(home_root(home), "a")
    assert refused.value.code == "link_loop"


def test_a_home_behind_a_link_works(home: Path) -> None:
    alias = home.parent / "alias"
    alias.symlink_to(home)
    (home / "absolute").symlink_to(home / "data" / "a.txt")
    assert preview(home_root(alias), "absolute")["text"] == "inside"


def test_a_link_swapped_in_between_never_leads_out(home: Path) -> None:
    """One thread swaps a folder for a link to the outside and back, as fast as it can; the other reads through it."""
    place, kept, trap = home / "swap", home / "kept", home / "trap"
    kept.mkdir()
    (kept / "secret.txt").write_text("harmless")
    trap.symlink_to("../outside")
    os.rename(kept, place)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(place, kept)
            os.rename(trap, place)
            os.rename(place, trap)
            os.rename(kept, place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: dict[str, int] = {}
    root, deadline = home_root(home), time.monotonic() + 3
    try:
        while time.monotonic() < deadline:
            try:
                result = preview(root, "swap/secret.txt")["text"]
            except AtelierError as problem:
                result = problem.code
            seen[result] = seen.get(result, 0) + 1
    finally:
        stop.set()
        swapper.join(10)
    assert SECRET not in seen
    assert set(seen) <= {"harmless", "not_found", "outside_root"}
    assert seen["harmless"] > 20, seen
    assert seen.get("outside_root", 0) > 0, f"the race never happened: {seen}"


def test_devices_pipes_and_sockets_are_not_opened(home: Path) -> None:
    os.mkfifo(home / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home / "socket"))
    listener.close()
    for name in ("pipe", "socket"):
        assert "pipe" in item(home, name)["problem"]
        started = time.monotonic()
        with pytest.raises(RefusedInput) as refused:
            preview(home_root(home), name)
        assert refused.value.code == "special_file"
        assert time.monotonic() - started < 1


def test_names_that_are_not_utf8_are_shown_with_the_reason(home: Path) -> None:
    os.close(os.open(os.fsencode(home) + b"/\xff\xfe.txt", os.O_CREAT))
    (home / "line\nbreak.txt").touch()
    problems = {entry["name"]: entry.get("problem") for entry in list_folder(home_root(home))["items"]}
    assert problems["\ufffd\ufffd.txt"] == "is not valid UTF-8"
    assert problems["line\nbreak.txt"] == "contains a control character"
    for name in problems:
        name.encode()


def test_pages_go_on_behind_a_name_that_is_not_utf8(home: Path) -> None:
    for n in range(6):
        os.close(os.open(os.fsencode(home) + b"/data/" + bytes([0xF8 + n]) + b".txt", os.O_CREAT))
    (home / "data" / "\ufffc.txt").touch()
    count, page = 0, None
    for _ in range(20):
        listing = list_folder(home_root(home), "data", limit=1, page=page)
        count, page = count + len(listing["items"]), listing["next"]
        if page is None:
            break
    assert count == 9


def test_hidden_names_are_left_out_but_can_be_opened(home: Path) -> None:
    (home / ".hidden").write_text("yes")
    assert ".hidden" not in [entry["name"] for entry in list_folder(home_root(home))["items"]]
    assert preview(home_root(home), ".hidden")["text"] == "yes"


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may read everything, so the test is somebody else for a moment."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "closed.txt").write_text("x")
        (Path(folder) / "closed.txt").chmod(0)
        yield Path(folder)


def test_what_may_not_be_read_says_so(closed_folder: Path, nobody: None) -> None:
    assert list_folder(home_root(closed_folder))["items"][0]["size_bytes"] == 1
    with pytest.raises(NotAllowed) as refused:
        preview(home_root(closed_folder), "closed.txt")
    assert refused.value.code == "permission_denied"


def test_a_home_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        list_folder(home_root(tmp_path / "nobody"))


def test_no_descriptor_is_left_open(home: Path) -> None:
    (home / "out").symlink_to("../outside/secret.txt")
    (home / "loop").symlink_to("loop")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        for path in ("data/a.txt", "out", "loop", "data", "missing", "data/a.txt/x"):
            for ask in (list_folder, preview):
                try:
                    ask(home_root(home), path)
                except AtelierError:
                    continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_first_page_of_100_000_files_takes_a_tenth_of_a_second(tmp_path: Path) -> None:
    for n in range(100_000):
        os.close(os.open(tmp_path / f"image-{n * 7919 % 100_000:06d}.png", os.O_CREAT | os.O_WRONLY))
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        listing = list_folder(home_root(tmp_path))
        taken.append(time.perf_counter() - started)
    assert listing["total"] == 100_000
    assert listing["items"][0]["name"] == "image-000000.png"
    assert min(taken) <= 0.1, taken
