"""Which kind of file a name promises or a first block proves: ``type`` of a listing, ``kind`` of a preview."""

from __future__ import annotations

_KINDS: dict[str, tuple[str, ...]] = {
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet", ".pq"),
    "image": (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    "notebook": (".ipynb",),
    "npy": (".npy",),
    "safetensors": (".safetensors",),
    "pickle": (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".pt2"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aiff", ".aif"),
    "zip": (".zip", ".npz", ".whl", ".keras", ".jar", ".docx", ".xlsx"),
    "text": (
        ".txt", ".md", ".rst", ".log", ".py", ".r", ".jl", ".sh", ".sql", ".c", ".h", ".cpp", ".js", ".ts", ".css",
        ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".html", ".htm", ".svg", ".tex", ".srt", ".vtt",
        ".po",
    ),
}  # fmt: skip
_BY_SUFFIX = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes}

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "parquet"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"\x93NUMPY", "npy"),
    (b"fLaC", "audio"),
    (b"ID3", "audio"),
    (b"OggS", "audio"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x89HDF\r\n\x1a\n", "binary"),
    (b"\x7fELF", "binary"),
    (b"%PDF-", "binary"),
    (b"\x80\x02", "pickle"),
    (b"\x80\x03", "pickle"),
    (b"\x80\x04\x95", "pickle"),
    (b"\x80\x05\x95", "pickle"),
)
_BY_LETTERS = {"csv", "jsonl", "notebook", "text"}


def kind_of_name(name: str) -> str:
    """The kind that a file name promises (csv, jsonl, parquet, image, …, gzip), or ``file`` when it promises none."""
    lower = name.lower()
    if lower.endswith(".gz"):
        return "gzip"
    dot = lower.rfind(".")
    return _BY_SUFFIX.get(lower[dot:], "file") if dot > 0 else "file"


def kind_of_head(head: bytes) -> str | None:
    """The kind that a file's first bytes prove, or None when they prove none."""
    if head[:4] == b"RIFF":
        return {b"WAVE": "audio", b"WEBP": "image"}.get(head[8:12], "binary")
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def kind_of_file(name: str, head: bytes) -> tuple[str, str]:
    """Kind of a file by its name and first bytes, and a note where the two contradict each other.

    A name that promises a pickle is believed whatever the bytes say: nothing that may be one is ever loaded.
    """
    named, proved = kind_of_name(name), kind_of_head(head)
    if named == "pickle" or not head:
        return named if named != "file" else "text", ""
    if proved is not None and proved != named:
        if named == "file" or (named == "zip" and proved == "zip"):
            return proved, ""
        return proved, f"The name promises {named}, but the content is {proved}."
    if proved is None and named not in _BY_LETTERS | {"file", "image", "audio", "safetensors"}:
        return _plain(head), f"The name promises {named}, but the content is not."
    return (_plain(head) if named == "file" else named), ""


def _plain(head: bytes) -> str:
    """``text`` or ``binary`` for a block without a magic number."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return "text"
    controls = sum(byte < 32 and byte not in b"\t\n\r\x0b\x0c\x1b\x08" for byte in head[:4096])
    return "text" if controls * 50 <= len(head[:4096]) and b"\0" not in head[:4096] else "binary"
