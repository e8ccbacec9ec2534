"""The public ``atelier.data``: list and preview files by ``root/path``, without reading more than is shown.

Parts for those who serve them: `atelier.data.roots` (named roots, ``list_folder``) and `atelier.data.previews`
(``plan``, ``preview``).
"""

from __future__ import annotations

import builtins

from atelier.data.access import Folder, Preview, list, preview  # noqa: A004

__all__ = ["Folder", "Preview", "list", "preview"]


def __dir__() -> builtins.list[str]:
    return sorted(__all__)
