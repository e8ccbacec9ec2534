"""What is near to a name that a work asked for in vain: a module of its image or of another one, a file beside it."""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atelier.agent.outcome import Result, UserError
from atelier.agent.outputs import readable

MOST_FILES = 20_000
"""So many files beside a work are looked at."""

NEAR, NEAR_WORD = 0.6, 0.8
"""How alike a path must be; a single word, which may be a program's name, must be more so."""

_MODULE = re.compile(r"No module named '(?P<name>[^']+)'")
_FILE = re.compile(r"\[Errno 2\] [^:]*: (?P<path>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")

DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "ignite": "pytorch-ignite",
    "imblearn": "imbalanced-learn",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "msgpack_numpy": "msgpack-numpy",
    "nvidia_smi": "nvidia-ml-py",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pl_bolts": "lightning-bolts",
    "pycocotools": "pycocotools",
    "pynvml": "nvidia-ml-py",
    "pytorch_lightning": "pytorch-lightning",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "umap": "umap-learn",
    "usb": "pyusb",
    "yaml": "pyyaml",
}
"""Modules whose package has another name: what a ``requirements.txt`` must say."""


@dataclass(frozen=True)
class Surroundings:
    """Where a work looked for what it did not find.

    Parameters
    ----------
    image : str
        The image's name.
    pythons : sequence of Path
        Its interpreter, and that of the packages installed over it.
    others : mapping
        The other images that everybody may use: name → interpreter.
    root, folder : Path
        The unpacked bundle, and the working directory in it.
    """

    image: str
    pythons: Sequence[Path]
    others: Mapping[str, str]
    root: Path
    folder: Path

    def words_on(self, error: UserError) -> str:
        """Sentences on what is near to the name that an error is about; empty where there is none, or nothing near."""
        kind = error.kind.rsplit(".", 1)[-1]
        if kind == "ModuleNotFoundError" and (match := _MODULE.search(error.message)):
            return self._on_module(match["name"])
        if kind == "FileNotFoundError" and (match := _FILE.search(error.message)):
            return self._on_file(ast.literal_eval(match["path"]))
        return ""

    # -- modules --------------------------------------------------------------------------------------------------
    def _on_module(self, name: str) -> str:
        top = name.partition(".")[0]
        there = {module for python in self.pythons for module in modules_of(python)} | sys.stdlib_module_names
        if top in there:
            return f"The image {self.image!r} has {top!r}, but it has no such part." if name != top else ""
        beside = [path for path in self._files() if path.endswith((f"/{top}.py", f"/{top}/__init__.py"))]
        if beside:
            return f"There is {beside[0]!r} beside the work, but its folder is not where modules are looked for."
        return " ".join(filter(None, (self._in_images(top, there), _distribution(top))))

    def _in_images(self, top: str, there: set[str]) -> str:
        having = [name for name, python in self.others.items() if top in modules_of(Path(python))]
        if having:
            return f"The image {having[0]!r} has it, {self.image!r} does not."
        nearest = difflib.get_close_matches(top, sorted(there), 1, NEAR_WORD)
        missing = f"The image {self.image!r} does not have it"
        return f"{missing}; the nearest that it has is {nearest[0]!r}." if nearest else f"{missing}."

    # -- files ----------------------------------------------------------------------------------------------------
    def _on_file(self, asked: str) -> str:
        wanted = os.path.relpath(asked, self.folder) if os.path.isabs(asked) else os.path.normpath(asked)
        base = os.path.basename(wanted)
        by_name: dict[str, list[str]] = {}
        for path in self._files():
            by_name.setdefault(os.path.basename(path), []).append(os.path.relpath(self.root / path, self.folder))
        least = NEAR if "." in base or "/" in wanted else NEAR_WORD
        near = [base] if base in by_name else difflib.get_close_matches(base, sorted(by_name), 3, least)
        paths = [path for name in near for path in by_name[name]]
        if not paths:
            return ""
        alike = difflib.SequenceMatcher(b=wanted)

        def likeness(path: str) -> float:
            alike.set_seq1(path)
            return alike.ratio()

        return f"The nearest file in the work's folder is {readable(max(paths, key=likeness))!r}."

    def _files(self) -> Iterator[str]:
        """Files beside the work, relative to the bundle's root; what lies in hidden folders is passed over."""
        left = MOST_FILES
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
            for name in sorted(names):
                left -= 1
                if left < 0:
                    return
                yield os.path.relpath(os.path.join(folder, name), self.root)


def explained(result: Result, around: Surroundings) -> Result:
    """The same end, whose message says what is near to what the work asked for in vain."""
    if result.error is None or result.message is None:
        return result
    try:
        words = around.words_on(result.error)
    except (OSError, ValueError, SyntaxError) as problem:  # a folder that can't be read, a path that is none
        print(f"Nothing near is told: {problem!r}", flush=True)
        return result
    return replace(result, message=f"{result.message}. {words}") if words else result


def _distribution(top: str) -> str:
    name = DISTRIBUTIONS.get(top)
    return f"Its package is called {name!r}." if name else ""


def modules_of(python: Path) -> set[str]:
    """Modules and packages that an interpreter's environment has installed; nothing is run for it."""
    root = python.parent.parent
    folders = (*root.glob("lib/python3*/site-packages"), *root.glob("lib/python3/dist-packages"))
    names = (name for folder in folders for name in os.listdir(folder))
    return {name.partition(".")[0] for name in names if not name.endswith((".dist-info", ".egg-info", ".pth"))}
