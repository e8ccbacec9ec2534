"""Callers who mean harm, or whose program is broken, are refused within bounds: what they send, and how they read."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from atelier.bundle.archive import PlannedFile, write_archive
from atelier.errors import RefusedInput
from atelier.wire import API, page_token
from tests.service_driver import SETTINGS, Service, service_over, write

# -- page tokens --------------------------------------------------------------------------------------------------
FORGED: dict[str, dict[str, Any]] = {
    "before the first year": {"at": "0001-01-01T00:00:00+05:00", "id": "r-aaaaaaaaaa"},
    "after the last year": {"at": "9999-12-31T23:59:59-05:00", "id": "r-aaaaaaaaaa"},
    "half a letter": {"at": "2026-01-01T00:00:00+00:00", "id": "r-\ud800"},
    "zero": {"at": "2026-01-01T00:00:00+00:00", "id": "r-\0"},
    "no moment": {"at": "soon", "id": "r-aaaaaaaaaa"},
    "no zone": {"at": "0001-01-01T00:00:00", "id": "r-aaaaaaaaaa"},
    "a number": {"at": 5, "id": 5},
    "nothing": {},
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_page_token_is_refused(service: Service, name: str) -> None:
    answer = service.get("/runs", params={"page": page_token(**FORGED[name])})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_page_token"), answer.text


# -- bodies -------------------------------------------------------------------------------------------------------
def begin(service: Service, request: str, *, token: str | None, body: bytes = b"{") -> tuple[int, str]:
    """The status and the error's code of a request whose body begins so and never ends."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(service.note["socket"])
        head = f"{request} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        head += f"Authorization: {token}\r\n" if token else ""
        line.sendall(f"{head}\r\n{len(body):x}\r\n".encode() + body + b"\r\n")
        answer = b""
        while not answer.endswith(b"}}"):
            part = line.recv(65536)
            assert part, f"the service hung up after {answer!r}"
            answer += part
    return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


def upgrade(service: Service, path: str) -> bytes:
    """All that is answered to one who asks for a WebSocket."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(service.note["socket"])
        head = f"GET {API}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: token {service.token}\r\n"
        head += (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aaaa\r\n\r\n"
        )
        line.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"}}"):
            part = line.recv(65536)
            assert part, f"the service hung up after {answer!r}"
            answer += part
    return answer


@pytest.mark.parametrize("path", ["/events", "/runs", "/nowhere"])
def test_a_websocket_is_refused_at_once(service: Service, path: str) -> None:
    answer = upgrade(service, path)
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "no_websocket"


@pytest.mark.parametrize("path", ["/roots/home/list?path=a%00b", "/runs?state=%00", "/runs/r-%00", "/models/a%00"])
def test_a_zero_byte_is_called_so(service: Service, path: str) -> None:
    answer = service.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "zero_byte"), answer.text


BODIES = (
    f"POST {API}/runs",
    f"POST {API}/runs/uploads/cancel",
    f"PUT {API}/bundles/{'0' * 64}",
    f"POST {API}/models",
    f"PUT {API}/agent/streams/log?offset=0",
    f"POST {API}/agent/uploads/place",
    f"POST {API}/agent/finish",
)


@pytest.mark.parametrize("scheme", [None, "token nobody's", "run nobody's"])
@pytest.mark.parametrize("request_line", BODIES)
def test_a_body_is_read_from_nobody_unknown(service: Service, request_line: str, scheme: str | None) -> None:
    assert begin(service, request_line, token=scheme) == (401, "unauthenticated")


@pytest.mark.parametrize("path", ["/runs", "/models", "/runs/uploads/cancel", "/runs/bundles/cancel"])
def test_a_body_whose_length_was_not_declared_is_bounded(service: Service, path: str) -> None:
    endless = b" " * ((8 << 20) + 1)
    assert begin(service, f"POST {API}{path}", token=f"token {service.token}", body=endless) == (413, "too_large")


# -- models that contradict themselves ----------------------------------------------------------------------------
def packed(name: str) -> bytes:
    """A zip archive with one file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, b"data")
    return made.getvalue()


CONTRADICTING: dict[str, tuple[str, list[tuple[str, bytes]]]] = {
    "a file that is a folder": ("path_taken", [("a", b"xyz"), ("a/b", b"xyz")]),
    "a folder that is a file": ("path_taken", [("a/b/c", b"xyz"), ("a", b"xyz")]),
    "the same twice": ("path_taken", [("a", b"xyz"), ("a", b"xyz")]),
    "a pickle by its name": ("pickle_in_package", [("a", b"xyz"), ("w.pkl", b"xyz")]),
    "a pickle by its begin": ("pickle_in_package", [("w", b"\x80\x04K\x01.")]),
    "a pickle in an archive": ("pickle_in_package", [("w.pt2", packed("archive/data.pkl"))]),
    "an archive that is none": ("package_changed", [("w.pt2", b"PK\x03\x04")]),
}


@pytest.mark.parametrize("name", CONTRADICTING)
def test_a_model_that_contradicts_itself_is_refused(service: Service, name: str) -> None:
    code, contents = CONTRADICTING[name]
    files = []
    with service.http as http:
        for path, content in contents:
            digest = hashlib.sha256(content).hexdigest()
            assert http.put(f"{API}/uploads/{digest}", content=content).status_code == 201
            files.append({"path": path, "size_bytes": len(content), "sha256": digest})
        answer = http.post(f"{API}/models", json={"name": "odd", "card": {}, "files": files})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code), answer.text
        assert http.get(f"{API}/models/odd").status_code == 404, "something was published"


def test_what_lies_where_a_version_goes_bars_no_model(service: Service) -> None:
    """A file lies where the version's folder must be made, and is no version's."""
    digest = hashlib.sha256(b"xyz").hexdigest()
    body = {"name": "kept", "card": {}, "files": [{"path": "a", "size_bytes": 3, "sha256": digest}]}
    with service.http as http:
        http.put(f"{API}/uploads/{digest}", content=b"xyz")
        assert http.post(f"{API}/models", json=body).json()["version"] == 1
        first = next(service.home.glob("blobs/models/*/kept/1"))
        (first.parent / "2").write_bytes(b"in the way")
        assert http.post(f"{API}/models", json=body | {"card": {"x": 1}}).json()["version"] == 2
        assert [model["version"] for model in http.get(f"{API}/models/kept").json()["items"]] == [2, 1]
        assert (first.parent / "2/a").read_bytes() == b"xyz"


# -- runs that reach for what is not theirs -------------------------------------------------------------------------
def test_links_that_a_run_puts_into_its_record_are_not_followed(service: Service, tmp_path: Path) -> None:
    """Its log and its folder of artifacts lead elsewhere: there nothing is read, and nothing is written."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secret").write_text("a secret of the account\n" * 10)
    code = f"""
        import pathlib, shutil, time, atelier
        record = pathlib.Path({str(service.home / "blobs/runs")!r}, atelier.current_run().id)
        print("first line", flush=True)
        chunk = record / "attempts/1/log/000000000000000"
        while not chunk.exists():
            time.sleep(0.05)
        chunk.unlink()
        chunk.symlink_to({str(tmp_path / "secret")!r})
        (record / "attempts/1/log.txt").symlink_to({str(tmp_path / "secret")!r})
        (record / "artifacts").symlink_to({str(tmp_path / "elsewhere")!r})
        open("o.txt", "w").write("mine")
        print("last line", flush=True)
    """
    run = service.finish(write(tmp_path / "code", train__py=code))
    assert run.state == "succeeded", service.log(run.id)
    assert "secret" not in service.log(run.id)
    assert service.content(run.id, "o.txt") == b"mine"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("folder", ["/tmp", "../../../../tmp", "nowhere"])
def test_a_work_in_another_folder_is_refused(service: Service, tmp_path: Path, folder: str) -> None:
    run = service.run(service.submit(write(tmp_path, train__py="print(1)")))
    work = {"kind": "script", "target": "train.py", "folder": folder}
    with pytest.raises(RefusedInput) as caught:
        service.client.submit({"work": work, "bundle": run.spec.bundle, "machine": "tiny"})
    assert caught.value.code == "bad_folder"


def test_an_attempt_cannot_end_as_running(service: Service, tmp_path: Path) -> None:
    code = """
        import http.client, json, os, pathlib, socket, atelier
        attempt = pathlib.Path(os.environ["ATELIER_RUN_DIR"]).parent
        line = http.client.HTTPConnection("atelier")
        line.sock = socket.socket(socket.AF_UNIX)
        line.sock.connect(json.loads((attempt / "orders.json").read_text())["service"]["socket"])
        token = (attempt / "token").read_text().strip()
        headers = {"Authorization": f"run {token}", "Content-Type": "application/json"}
        line.request("POST", "/services/atelier/api/v1/agent/finish", json.dumps({"state": "running"}), headers)
        print(line.getresponse().read().decode())
    """
    run = service.finish(write(tmp_path, train__py=code))
    assert "An attempt can't end as 'running'." in service.log(run.id), service.log(run.id)


# -- bundles that grow --------------------------------------------------------------------------------------------
MIB = 1 << 20


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    """A service that takes little code."""
    with service_over(settings=SETTINGS + "limits: {bundle_size: 16Mi}\n") as place:
        yield place


def upload_zeros(service: Service, folder: Path, size_bytes: int) -> dict[str, Any]:
    """The spec of a run whose bundle unpacks to a function and so many zeros; refused for its parameters."""
    folder.mkdir()
    (folder / "train.py").write_text("def main():\n    pass\n")
    with (folder / "zeros").open("wb") as zeros:
        zeros.truncate(size_bytes)
    planned = [PlannedFile(path.name, path, path.stat().st_size) for path in sorted(folder.iterdir())]
    bundle = folder.with_suffix(".tar.zst")
    digest = write_archive(planned, bundle)
    assert bundle.stat().st_size < MIB
    service.client.put_bundle(bundle, digest)
    work = {"kind": "function", "target": "train:main"}
    return {"work": work, "bundle": digest, "params": {"unknown": 1}, "machine": "tiny"}


def test_a_bundle_that_grows_without_end_is_refused(small: Service, tmp_path: Path) -> None:
    with small.http as http:
        for mib, code in ((60, "unknown_parameter"), (70, "bad_bundle")):
            answer = http.post(f"{API}/runs", json=upload_zeros(small, tmp_path / str(mib), mib * MIB))
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)


def test_many_submits_of_one_user_hold_up_nothing_else(small: Service, tmp_path: Path) -> None:
    spec = upload_zeros(small, tmp_path / "zeros", 60 * MIB)
    ended: list[int] = []

    def submit(n: int) -> None:
        with small.http as http:
            answer = http.post(f"{API}/runs", json=spec)
        ended.append(answer.status_code)

    with ThreadPoolExecutor(60) as pool:
        submits = [pool.submit(submit, n) for n in range(60)]
        while not ended:
            assert small.get("/catalog").status_code == 200
        assert small.get("/runs").status_code == 200
        before = len(ended)
        for each in submits:
            each.result(timeout=60)
    assert before < 20, "the list of runs waited for most of the submits"
    assert set(ended) == {422}
