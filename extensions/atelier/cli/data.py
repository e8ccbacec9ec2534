"""``atelier data ls | preview``: home is read here, every other root by the service."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from atelier.cli.connection import client_of
from atelier.cli.output import Output
from atelier.errors import RefusedInput


def ls(options: Namespace, output: Output) -> int:
    """List the roots, or one page of a folder."""
    from atelier.data import Folder
    from atelier.data.paths import split_root

    if not options.place:
        return _roots(options, output)
    if options.limit < 1:
        raise RefusedInput("bad_limit", f"--limit {options.limit} is not a number of entries.", hint="Give 1 or more.")
    root, path = split_root(options.place)
    if root == "home":
        from atelier.data.roots import home_root, list_folder

        page = list_folder(home_root(), path, limit=options.limit, page=options.page)
    else:
        with client_of(options) as client:
            page = client.root_list(root, path, limit=options.limit, page=options.page)
    output.document(page)
    output.say(repr(Folder(page)))
    if page["next"]:
        output.say(f"more: atelier data ls {options.place} --page {page['next']}")
    return 0


def _roots(options: Namespace, output: Output) -> int:
    with client_of(options) as client:
        items = [{"name": "home", "title": "Your home folder", "writable": True}, *client.roots()]
    output.document({"items": items})
    output.table(
        ["root", "title", "writable"],
        [[entry["name"], entry["title"], "yes" if entry["writable"] else "no"] for entry in items],
        empty="no roots",
    )
    return 0


def preview(options: Namespace, output: Output) -> int:
    """Show the beginning of a file, within a budget of bytes and time."""
    from atelier.data import Preview
    from atelier.data.paths import split_root

    root, path = split_root(options.place)
    wanted: dict[str, Any] = {"rows": options.limit}
    if root == "home":
        from atelier.data.previews import preview as look
        from atelier.data.roots import home_root

        shown = look(home_root(), path, **wanted)
    else:
        with client_of(options) as client:
            shown = client.root_preview(root, path, **wanted)
    output.document(shown)
    output.say(repr(Preview(shown)))
    return 0
