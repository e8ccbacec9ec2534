"""One suite that every kind of root must pass: a folder, an object store, a web server."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from atelier.data.previews import plan, preview
from atelier.data.roots import Root, catalog_root, home_root, list_folder, run_root
from atelier.errors import NotFound, RefusedInput
from atelier.settings import Root as CatalogRoot

FILES = {
    "readme.txt": b"hello\n",
    "Zebra.csv": b"a,b\n1,2\n",
    "apple.csv": b"a,b\n3,4\n",
    "%2e%2e": b"only an odd name\n",
    "images/cat.txt": b"meow\n",
    "images/deep/er/x.txt": b"x\n",
    "übung/naïve café.txt": "grün\n".encode(),
    **{f"many/{n:03d}.txt": b"" for n in range(25)},
    "many/sub/one.txt": b"1",
}
BAD_PATHS = ["/etc/passwd", "..", "../x", "a/../../x", "a\0b", "a\nb", "x" * 256, "a/" * 3000, "\udcff", "images/.."]


class RangeHandler(SimpleHTTPRequestHandler):
    """Python's own file server plus single ranges, as every real one has."""

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not found or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()[int(found[1]) : int(found[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Nothing: the tests' output is read by people."""


def write_files(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def web_url(tmp_path: Path) -> Iterator[str]:
    write_files(tmp_path / "served" / "base")
    (tmp_path / "served" / "secret.txt").write_text("outside of the base")
    handler = partial(RangeHandler, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/base"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture(params=["folder", "objects", "web"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    if request.param == "folder":
        yield home_root(write_files(tmp_path / "home"))
    elif request.param == "web":
        yield catalog_root(CatalogRoot(name="web", url=request.getfixturevalue("web_url")))
    else:
        memory = fsspec.filesystem("memory")
        for name, content in FILES.items():
            memory.pipe_file(f"/bucket/base/{name}", content)
        yield catalog_root(CatalogRoot(name="objects", url="memory://bucket/base"))
        memory.rm("/bucket", recursive=True)


def names(listing: dict) -> list[str]:
    return [item["name"] for item in listing["items"]]


def test_listing_gives_folders_first_then_names_without_regard_to_case(root: Root) -> None:
    listing = list_folder(root)
    assert names(listing) == ["images", "many", "übung", "%2e%2e", "apple.csv", "readme.txt", "Zebra.csv"]
    assert (listing["root"], listing["path"], listing["next"], listing["total"]) == (root.name, "", None, 7)
    kinds = {item["name"]: (item["kind"], item["type"]) for item in listing["items"]}
    assert kinds["images"] == ("folder", "folder")
    assert kinds["apple.csv"] == ("file", "csv")


def test_pages_hold_every_name_once(root: Root) -> None:
    found: list[str] = []
    page = None
    for _ in range(6):
        listing = list_folder(root, "many", limit=7, page=page)
        assert len(listing["items"]) <= 7
        found += names(listing)
        page = listing["next"]
        if page is None:
            break
    assert found == ["sub", *(f"{n:03d}.txt" for n in range(25))]


def test_listing_is_never_recursive(root: Root) -> None:
    assert names(list_folder(root, "images")) == ["deep", "cat.txt"]
    assert names(list_folder(root, "images/./deep//")) == ["er"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_are_refused_by_list_and_preview(root: Root, path: str) -> None:
    for ask in (list_folder, preview, plan):
        with pytest.raises(RefusedInput) as refused:
            ask(root, path)
        assert refused.value.code == "bad_path"
        assert refused.value.hint


def test_what_is_not_there_is_not_found(root: Root) -> None:
    for ask in (preview, plan):
        with pytest.raises(NotFound) as missing:
            ask(root, "images/dog.txt")
        assert missing.value.code == "not_found"
    with pytest.raises(NotFound):
        list_folder(root, "no/such/folder")


def test_a_percent_encoded_name_is_only_a_name(root: Root) -> None:
    assert preview(root, "%2e%2e")["text"] == "only an odd name\n"
    with pytest.raises(NotFound):
        preview(root, "images/%2e%2e/readme.txt")
    with pytest.raises((NotFound, RefusedInput)):
        preview(root, "%2e%2e/secret.txt")
    with pytest.raises(NotFound):
        preview(root, "images%2fcat.txt")


def test_names_of_all_languages_are_found_again(root: Root) -> None:
    assert names(list_folder(root, "übung")) == ["naïve café.txt"]
    assert preview(root, "übung/naïve café.txt")["text"] == "grün\n"


def test_a_file_is_no_folder_and_a_folder_no_file(root: Root) -> None:
    with pytest.raises((RefusedInput, NotFound)) as refused:
        list_folder(root, "readme.txt")
    assert refused.value.code in {"not_a_folder", "not_found"}
    with pytest.raises((RefusedInput, NotFound)) as refused:
        preview(root, "images/deep/")
    assert refused.value.code in {"is_a_folder", "not_found"}


def test_preview_is_the_same_json_everywhere(root: Root) -> None:
    shown = preview(root, "apple.csv")
    assert shown["rows"] == [[3, 4]]
    assert shown["columns"] == [{"name": "a", "type": "int"}, {"name": "b", "type": "int"}]
    assert shown["plan"]["within_budget"] is True
    assert shown["bytes_read"] == shown["size_bytes"] == 8


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_a_sensible_size(root: Root, limit: int) -> None:
    with pytest.raises(RefusedInput) as refused:
        list_folder(root, limit=limit)
    assert refused.value.code == "bad_limit"


@pytest.mark.parametrize("token", ["x", "!!", "eyJh", "bnVsbA", "AAAA"])
def test_a_foreign_page_token_is_refused(root: Root, token: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        list_folder(root, page=token)
    assert refused.value.code == "bad_page_token"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "zip::http://host/x",
        "file://host/x",
        "relative/path",
        "s3://",
        "http:///x",
        "ssh://host/x",
        "github://a:b@c",
    ],
)
def test_only_known_urls_become_roots(url: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        catalog_root(CatalogRoot(name="x", url=url))
    assert refused.value.code == "bad_root_url"


def test_a_run_is_a_root_of_its_own(tmp_path: Path) -> None:
    root = run_root("r-aaaaaaaaaa", write_files(tmp_path / "run").as_uri())
    assert list_folder(root)["root"] == "runs/r-aaaaaaaaaa"
    assert preview(root, "readme.txt")["text"] == "hello\n"
