"""The log of an attempt: its first half as it comes, its last half at the end, on a full disk too, whoever ends it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.agent.logfile import LogFile
from atelier.agent.logtail import PARTS, LogTail, append_tail
from tests.synced import Synced


def open_log(folder: Path, limit_bytes: int, told: list[str] | None = None) -> LogFile:
    tell = (lambda words: None) if told is None else told.append
    return LogFile(folder / "log", limit_bytes, tail=folder / "tail", tell=tell)


def kept(folder: Path) -> bytes:
    return (folder / "log").read_bytes()


def assert_appended(folder: Path) -> None:
    told: list[str] = []
    append_tail(folder / "log", folder / "tail", told.append)
    assert told == []


def cut(text: bytes, limit_bytes: int) -> bytes:
    """What is to be kept of a text."""
    if len(text) <= limit_bytes:
        return text
    head, tail = limit_bytes - limit_bytes // 2, limit_bytes // 2
    words = f"\n[{len(text) - limit_bytes} bytes were left out here: this log reached its limit of {limit_bytes}]\n"
    return text[:head] + words.encode() + text[len(text) - tail :]


def test_a_log_keeps_its_head_and_its_tail_and_counts_the_middle(tmp_path: Path) -> None:
    told: list[str] = []
    log = open_log(tmp_path, 10, told)
    for data in (b"0123", b"4567", b"89ab", b"cdef"):
        log.write(data)
    assert kept(tmp_path) == b"01234", "the last half is still growing"
    assert log.dropped_bytes == 6
    assert log.seen_bytes == 16
    log.close()
    assert kept(tmp_path) == b"01234\n[6 bytes were left out here: this log reached its limit of 10]\nbcdef"
    assert [words for words in told if "5 B, half of what is kept" in words] == told
    assert len(told) == 1
    assert not (tmp_path / "tail").exists()


def test_a_whole_log_says_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path, 10)
    log.line("123456789")
    log.close()
    assert kept(tmp_path) == b"123456789\n"
    assert log.dropped_bytes == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=40), st.integers(1, 200))
def test_whatever_is_written_head_and_tail_are_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], limit_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = open_log(folder, limit_bytes)
    for data in pieces:
        log.write(data)
        sizes = [path.stat().st_size for path in folder.glob("tail/[0-9]*")]
        assert sum(sizes) <= (PARTS + 1) * max(1, -(-(limit_bytes // 2) // PARTS)), "the ring grows"
    log.close()
    assert kept(folder) == cut(b"".join(pieces), limit_bytes)


def test_the_end_that_a_dead_agent_has_kept_is_appended(tmp_path: Path) -> None:
    text = b"".join(b"%03d " % n for n in range(100))
    log = open_log(tmp_path, 60)
    log.write(text)
    assert kept(tmp_path) == text[:30]
    assert_appended(tmp_path)
    assert kept(tmp_path) == cut(text, 60)
    assert_appended(tmp_path)
    assert kept(tmp_path) == cut(text, 60), "a second time does nothing"


@pytest.mark.parametrize("share", range(0, 101, 10))
def test_an_end_that_was_appended_in_part_is_appended_to_the_end(tmp_path: Path, share: int) -> None:
    """Another agent has died while it appended; parts that were whole in the log are gone."""
    text = os.urandom(1000)
    whole = cut(text, 400)
    log = open_log(tmp_path, 400)
    log.write(text)
    done = 200 + (len(whole) - 200) * share // 100
    (tmp_path / "log").write_bytes(whole[:done])
    for path in sorted(tmp_path.glob("tail/[0-9]*"))[:-1]:
        if len(text) - (len(whole) - done) >= int(path.name) + 200 + path.stat().st_size:
            path.unlink()
    assert_appended(tmp_path)
    assert kept(tmp_path) == whole


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    """An agent that was started twice for the same attempt."""
    first = open_log(tmp_path, 8)
    first.write(b"012345")
    second = open_log(tmp_path, 8)
    second.write(b"6789ab")
    second.close()
    assert kept(tmp_path) == cut(b"0123456789ab", 8)


def test_a_part_that_the_run_has_removed_is_lost_and_nothing_else(tmp_path: Path) -> None:
    text = bytes(range(200))
    log = open_log(tmp_path, 80)
    log.write(text)
    sorted(tmp_path.glob("tail/[0-9]*"))[2].unlink()
    log.close()
    assert kept(tmp_path).startswith(text[:40])
    assert kept(tmp_path).endswith(text[-10:])
    assert 0 < log.lost_bytes <= 10


@pytest.mark.parametrize("note", [None, b"", b"30", b"30 30 30", b"\0" * 5, b"\xff 30", b"30 x"])
def test_without_its_note_all_that_was_kept_is_appended(tmp_path: Path, note: bytes | None) -> None:
    text = os.urandom(1000)
    log = open_log(tmp_path, 400)
    log.write(text)
    (tmp_path / "tail/after").unlink()
    if note is not None:
        (tmp_path / "tail/after").write_bytes(note)
    parts = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("tail/[0-9]*")))
    assert_appended(tmp_path)
    head, _, rest = kept(tmp_path).partition(b"\n[here bytes may be missing or repeated")
    assert head == text[:200]
    assert rest.partition(b"]\n")[2] == parts
    assert len(parts) >= 200
    assert text.endswith(parts)
    assert not (tmp_path / "tail").exists()


def test_the_note_outlives_a_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(monkeypatch)
    open_log(tmp_path, 8).write(b"012345")
    assert (tmp_path / "tail/after").read_text() == "4 4"
    assert synced.outlives(tmp_path / "tail/after")


def test_a_log_whose_note_was_damaged_goes_on(tmp_path: Path) -> None:
    first = open_log(tmp_path, 8)
    first.write(b"012345")
    (tmp_path / "tail/after").write_bytes(b"")
    second = open_log(tmp_path, 8)
    second.write(b"6789ab")
    second.close()
    assert kept(tmp_path).startswith(b"0123\n[")
    assert kept(tmp_path).endswith(b"]\n789ab")


@pytest.mark.parametrize("name", ["0x", "tail"])
def test_an_end_that_can_not_be_appended_is_told(tmp_path: Path, name: str) -> None:
    log = open_log(tmp_path, 10)
    log.write(b"0123456789abcdef")
    if name == "tail":
        (tmp_path / "log").rename(tmp_path / "other")
        (tmp_path / "log").symlink_to("other")
    else:
        (tmp_path / "tail" / name).touch()
    told: list[str] = []
    append_tail(tmp_path / "log", tmp_path / "tail", told.append)
    assert [words.startswith("The end of the log, which its dead agent had kept, can't be") for words in told] == [True]
    assert kept(tmp_path) == b"01234"


# -- full disks ---------------------------------------------------------------------------------------------------
def test_a_full_disk_costs_lines_and_no_run(tmp_path: Path) -> None:
    log = LogFile(Path("/dev/full"), 100, tail=tmp_path / "tail")
    log.write(b"0123")
    assert (log.dropped_bytes, log.lost_bytes) == (0, 0), "it waits"
    log.write(b"4567")
    log.close()
    assert (log.dropped_bytes, log.lost_bytes) == (0, 8)
    assert not Path("/dev/.full-room").exists()


def test_a_log_that_no_room_is_left_for_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atelier.agent.logfile.LEFT_PART", 1)
    monkeypatch.setattr("atelier.agent.logfile.LEFT_BYTES", 1 << 62)
    log = open_log(tmp_path, 10**7)
    for number in range(100_000):
        log.line(str(number))
    assert kept(tmp_path) == b""
    log.close()
    lines = kept(tmp_path).decode().splitlines()
    assert lines[-1] == "99999"
    assert len(lines) > 10_000
    assert log.lost_bytes + len(kept(tmp_path)) == sum(len(f"{number}\n") for number in range(100_000))


def test_an_end_that_has_no_room_is_counted(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "tail", 10)
    while tail.size_bytes < 20:
        tail.write(b"x" * (20 - tail.size_bytes), 0)
    with open("/dev/full", "wb") as full:
        assert tail.append_to(full.fileno()) >= 10


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    log = open_log(tmp_path, 10**7)
    threads = [threading.Thread(target=lambda n=n: [log.line(str(n) * 50) for _ in range(200)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    log.close()
    lines = kept(tmp_path).decode().splitlines()
    assert len(lines) == 800
    assert {len(set(line)) for line in lines} == {1}
