"""A form to walk through data: folders page by page, a look at each file, and its cost before a big one."""

from __future__ import annotations

import traitlets

from atelier.data.paths import split_path
from atelier.widgets.browsing import Browsing
from atelier.widgets.form import Form, page_source, page_style


class DataBrowser(Form):
    """Browse data from the notebook.

    Parameters
    ----------
    root : str
        Where to begin: ``"home"``, ``"datasets/<name>"`` or ``"runs/<id>"``.
    path : str
        A folder or a file below it. Both follow what the user opens, and can be read in the next cell.

    Attributes
    ----------
    selected : str
        The file that is shown, as ``"root/path"`` for `atelier.data.preview`; empty when none is.

    Examples
    --------
    >>> browser = DataBrowser("home", "data")  # doctest: +SKIP
    >>> atelier.data.preview(browser.selected).to_pandas()  # doctest: +SKIP
    """

    _esm = page_source("data_browser")
    _css = page_style("data_browser")
    root = traitlets.Unicode("home").tag(sync=True)
    path = traitlets.Unicode("").tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)

    def __init__(self, root: str = "home", path: str = "") -> None:
        split_path(path)
        browsing = Browsing()
        place = f"{root}/{path}".rstrip("/")
        super().__init__(
            f"DataBrowser({place}): open this notebook in JupyterLab to browse.",
            {"roots": browsing.roots, "listing": browsing.listing, "look": browsing.look},
            root=root,
            path=path,
        )
