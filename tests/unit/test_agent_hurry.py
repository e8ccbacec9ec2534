"""A user who does not want to wait waits for no more files of a checkpoint or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atelier.agent.link import Link
from atelier.agent.place import Place
from atelier.agent.uploads import Uploads
from atelier.errors import Conflict
from atelier.recorder.spool import publish


class Taking(Link):
    """A service that takes all files, and counts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.taken, self.told = folder, 0, False

    def post(self, path: str, body: Any, /, **query: str | int) -> dict[str, Any]:
        if not path.endswith("/place"):
            self.told = True
            return {}
        self.taken += 1
        return {"url": (self.folder / f"file-{self.taken}").as_uri()}


@pytest.mark.parametrize("patience", [0, 1, 27, 10_000])
def test_a_hurried_checkpoint_is_left_out(tmp_path: Path, patience: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for n in range(20):
        (source / f"part-{n}").write_text(str(n))
    folder = publish(source, tmp_path / "step-1")
    (tmp_path / "store").mkdir()
    link = Taking(tmp_path / "store")
    uploads = Uploads(link, Place(tmp_path))
    looks = iter(range(10_000))
    uploads.is_hurried = lambda: next(looks) >= patience
    if patience == 10_000:
        uploads.checkpoint(folder, 1)
        assert (link.taken, link.told) == (21, True)
        return
    with pytest.raises(Conflict, match="The checkpoint of step 1 was not kept: the run was cancelled"):
        uploads.checkpoint(folder, 1)
    assert (link.taken, link.told) == (max(0, patience - 21), False)
