"""The pattern language of ``.gitignore``, as gitignore(5) describes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    regex: re.Pattern[str]
    ignores: bool
    only_folders: bool


class IgnoreFile:
    """The rules of one ignore file; paths are POSIX and relative to the folder it lies in.

    Parameters
    ----------
    lines : iterable of str
        Its lines; those that are no valid pattern match nothing, as in git.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line)) is not None]

    def says(self, path: str, *, is_folder: bool = False) -> bool | None:
        """Whether the last matching rule ignores the path, None without one; its folders are not looked at."""
        for rule in reversed(self._rules):
            if (is_folder or not rule.only_folders) and rule.regex.fullmatch(path):
                return rule.ignores
        return None

    def ignores_file(self, path: str) -> bool:
        """Whether a file is ignored, by itself or because one of its folders is."""
        parts = path.split("/")
        folders = ("/".join(parts[:length]) for length in range(1, len(parts)))
        return any(self.says(folder, is_folder=True) for folder in folders) or self.says(path) is True


def _rule(line: str) -> _Rule | None:
    text = _without_trailing_spaces(line.rstrip("\r\n"))
    if not text or text.startswith("#"):
        return None
    ignores = not text.startswith("!")
    text = text if ignores else text[1:]
    only_folders = text.endswith("/")
    text = text[:-1] if only_folders else text
    anchored = "/" in text
    text = text.removeprefix("/")
    if not text:
        return None
    try:
        return _Rule(re.compile(("" if anchored else "(?:.*/)?") + _translated(text), re.DOTALL), ignores, only_folders)
    except re.error:
        return None


def _without_trailing_spaces(text: str) -> str:
    stripped = text.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and len(stripped) < len(text) else stripped


def _translated(pattern: str) -> str:
    """The regular expression of a pattern: ``*`` and ``?`` stop at slashes, ``**`` as a whole part does not."""
    parts = pattern.split("/")
    out = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**" and len(parts) > 1:
            out += ".+" if last else "(?:[^/]+/)*"
        else:
            out += _translated_part(part) + ("" if last else "/")
    return out


def _translated_part(part: str) -> str:
    out, index = "", 0
    while index < len(part):
        letter = part[index]
        index += 1
        if letter == "*":
            out += "" if out.endswith("[^/]*") else "[^/]*"
        elif letter == "?":
            out += "[^/]"
        elif letter == "\\":
            if index == len(part):
                raise re.error("a backslash ends the pattern")
            out += re.escape(part[index])
            index += 1
        elif letter == "[":
            text, index = _translated_class(part, index)
            out += text
        else:
            out += re.escape(letter)
    return out


def _translated_class(part: str, start: int) -> tuple[str, int]:
    """A ``[...]`` class that begins before ``start``, and where the pattern goes on after it."""
    index = start + (part[start : start + 1] in {"!", "^"})
    negated = index > start
    first = index
    body = ""
    while index < len(part) and (part[index] != "]" or index == first):
        if part[index] == "[" and part[index + 1 : index + 2] == ":":
            raise re.error("named classes are not known")
        if part[index] == "\\" and index + 1 < len(part):
            index += 1
            body += re.escape(part[index])
        else:
            body += part[index] if part[index] == "-" else re.escape(part[index])
        index += 1
    if index >= len(part):
        raise re.error("a class that does not end")
    return f"(?![/])[{'^' if negated else ''}{body}]", index + 1
