"""Makes ``languages.csv`` out of the translation catalogues in a Django wheel.

    python make_languages.py django-5.2.19-py3-none-any.whl

Get the wheel with ``pip download --no-deps Django==5.2.19``. The same wheel gives the same table, byte for byte.
"""

from __future__ import annotations

import argparse
import ast
import csv
import html
import random
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

LANGUAGES = {
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "sv": "Swedish",
}
"""All in Latin script, so that the alphabet alone does not give the answer away."""

SHORTEST, LONGEST = 12, 80
LINES_EACH = 450
_PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z%]|\{[^}]*\}|<[^>]*>|https?://\S+|&\w+;|[()\[\]]")


def main() -> None:
    """Read the wheel named on the command line and write the table beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("languages.csv"))
    asked = parser.parse_args()
    texts = {code: read_language(asked.wheel, code) for code in LANGUAGES}
    rows = choose(texts)
    with asked.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["language", "message", "text"])
        writer.writerows(rows)
    print(f"{len(rows)} lines in {len(texts)} languages: {asked.out}")


def read_language(wheel: Path, code: str) -> dict[tuple[str, int], str]:
    """(English message, sentence of it) → its clean translation, from all of Django's catalogues of one language."""
    found: dict[tuple[str, int], str] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(f"/locale/{code}/LC_MESSAGES/django.po"):
                for message, translation in read_catalogue(archive.read(name).decode("utf-8")):
                    for place, sentence in enumerate(re.split(r"(?<=[.!?])\s+", translation)):
                        text = clean(sentence)
                        if SHORTEST <= len(text) <= LONGEST and text not in message:
                            found.setdefault((message, place), text)
    return found


def read_catalogue(po: str) -> Iterator[tuple[str, str]]:
    """(message, translation) of a gettext catalogue; plurals, unsure and obsolete entries are left out."""
    for entry in re.split(r"\n\s*\n", po):
        if "#, fuzzy" in entry or "msgid_plural" in entry or "#~" in entry:
            continue
        fields: dict[str, str] = defaultdict(str)
        field = ""
        for line in entry.splitlines():
            match = re.fullmatch(r'(?:(msgctxt|msgid|msgstr)\s+)?(".*")', line)
            if match:
                field = match[1] or field
                fields[field] += ast.literal_eval(match[2])
        if fields["msgid"] and fields["msgstr"]:
            yield fields["msgid"], fields["msgstr"]


def clean(text: str) -> str:
    """A translation as one line, without placeholders, markup and links, which are the same in every language."""
    return " ".join(_PLACEHOLDER.sub(" ", html.unescape(text)).split()).strip(" :.,;–-“”\"'")


def choose(texts: dict[str, dict[tuple[str, int], str]]) -> list[tuple[str, int, str]]:
    """The same number of lines of each language; a text that two languages share is left out, as is a repeated one.

    The number in the middle is the English message that a line translates, so that a split can keep messages together.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for code, found in texts.items():
        for text in found.values():
            owners[text.casefold()].add(code)
    numbers = {message: n for n, message in enumerate(sorted({key[0] for found in texts.values() for key in found}))}
    own = {
        code: {
            text.casefold(): (code, numbers[key[0]], text)
            for key, text in sorted(found.items())
            if len(owners[text.casefold()]) == 1
        }
        for code, found in texts.items()
    }
    size = min(LINES_EACH, *map(len, own.values()))
    rows = []
    for code, found in own.items():
        rows += sorted(random.Random(code).sample(sorted(found.values()), size))
    return rows


if __name__ == "__main__":
    main()
