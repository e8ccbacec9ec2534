"""The entry point of the papermill engine ``atelier``.

papermill loads it while papermill itself is being imported, so this module imports nothing of papermill.
"""

from __future__ import annotations

from typing import Any


class AtelierEngine:
    """``papermill in.ipynb out.ipynb -p epochs 5 --engine atelier``.

    The original notebook is submitted with its parameters, checked as `atelier.submit` checks them, with the code
    beside it; the cell that papermill injects is dropped. Image, machine, retries and the rest of `atelier.submit`'s
    options come from ``ATELIER_IMAGE``, ``ATELIER_MACHINE``, ``ATELIER_RETRIES`` … or from the notebook's metadata
    ``atelier: {image, machine, …}``. Ctrl-C cancels the run. The notebook's kernel name and ``--cwd`` mean nothing to
    a run.
    """

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """Any name: the kernel of a run is that of its image."""
        return name or nb.metadata.get("kernelspec", {}).get("name") or "python3"

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Python; a notebook of another language is refused at submit, with words."""
        return "python"

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, **options: Any) -> Any:
        """Submit and follow, as `atelier.engine.managed.ManagedEngine.execute_notebook` says."""
        from atelier.engine.managed import ManagedEngine

        return ManagedEngine.execute_notebook(nb, kernel_name, **options)
