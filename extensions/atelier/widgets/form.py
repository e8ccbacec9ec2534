"""What every form is: an anywidget whose page asks by name and gets answers; one plain line without a browser."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget

from atelier.errors import AtelierError

Answer = Callable[..., Any]

_FOLDER = Path(__file__).parent


def page_source(name: str) -> str:
    """The ES module of a form: what all forms share, then its own part."""
    return "\n".join((_FOLDER / file).read_text(encoding="utf-8") for file in ("form.js", f"{name}.js"))


def page_style(name: str) -> str:
    """The style sheet of a form, made as `page_source`."""
    return "\n".join((_FOLDER / file).read_text(encoding="utf-8") for file in ("form.css", f"{name}.css"))


class Form(anywidget.AnyWidget):
    """Base of the forms.

    The page sends ``{"id", "ask", "with"}`` and gets ``{"id", "answer"}`` or ``{"id", "error": {code, message, hint,
    detail}}``; `tell` sends it news on its own. Answers may come from another thread than the one that runs cells
    (JupyterLab uses a subshell of the kernel), so a form works while a cell runs. In a run, which nobody watches
    through this kernel, no comm is opened.

    Parameters
    ----------
    line : str
        What stands for the form where nothing can draw it.
    answers : mapping of str to callable
        What the page may ask for. An answer is JSON.
    """

    def __init__(self, line: str, answers: Mapping[str, Answer], **traits: Any) -> None:
        self._line = line
        self._answers = {"show": self._show, **answers}
        self._result: Any = None
        self._shown: dict[str, Any] = {}
        super().__init__(**traits)
        self.on_msg(self._take)

    def open(self) -> None:
        """Open the comm to the page, unless this is a run."""
        if "ATELIER_RUN_DIR" not in os.environ:
            super().open()

    def tell(self, **news: Any) -> None:
        """Send the page something that it has not asked for."""
        self.send(news)

    def bundle_of(self, result: Any) -> dict[str, Any]:
        """The MIME bundle of a form's result, for the page's labextension to put below the form."""
        bundle = result._repr_mimebundle_()
        self._shown = bundle
        return dict(bundle)

    def _show(self) -> None:
        """Display the result below the form where no labextension does: by the kernel, in place of an older one."""
        if self._result is not None:
            self._result.update(self._shown, raw=True)

    def __repr__(self) -> str:
        return self._line

    def _ipython_display_(self) -> None:
        from IPython.display import display as untyped

        display: Callable[..., Any] = untyped
        bundle, metadata = self._repr_mimebundle_()
        display(bundle, raw=True, metadata=metadata)
        if self.comm is not None:
            self._result = display({"text/plain": ""}, raw=True, display_id=True)

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        plain = {"text/plain": self._line, "text/html": f"<p>{html.escape(self._line)}</p>"}
        drawn = super()._repr_mimebundle_() if self.comm is not None else None
        bundle, metadata = drawn or ({}, {})
        return {**bundle, **plain}, metadata

    def _take(self, _form: Form, content: Any, _buffers: Any) -> None:
        if not isinstance(content, Mapping) or "ask" not in content:
            return
        name, given = content.get("ask"), content.get("with") or {}
        answer = self._answers.get(str(name))
        try:
            if answer is None:
                raise LookupError(f"the form has no answer to {name!r}")
            self.send({"id": content.get("id"), "answer": answer(**given)})
        except AtelierError as problem:
            self.send({"id": content.get("id"), "error": told(problem)})
        except Exception as problem:
            self.send({"id": content.get("id"), "error": _unforeseen(problem)})
            raise


def told(problem: AtelierError) -> dict[str, Any]:
    """An error as the page shows it."""
    return {"code": problem.code, "message": problem.message, "hint": problem.hint, "detail": problem.detail}


def _unforeseen(problem: Exception) -> dict[str, Any]:
    what = f"{type(problem).__name__}: {problem}"[:500]
    return {
        "code": "internal",
        "message": what,
        "hint": "The log (View → Show Log Console) has the traceback.",
        "detail": {},
    }
