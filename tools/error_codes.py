"""The page of error codes, read from the source: ``python -m tools.error_codes`` writes ``docs/errors.md``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tools.plan import ROOT

PAGE = ROOT / "docs/errors.md"
SOURCE = ROOT / "extensions/atelier"
MEANING = {
    "RefusedInput": ("What was sent can't be taken; nothing was changed", 2, "422, 413 or 400"),
    "NotFound": ("It does not exist, or is not yours", 3, "404"),
    "NotAllowed": ("You may not do this", 4, "403 or 401"),
    "Unreachable": ("The run service, the hub or a data root does not answer", 5, "503"),
    "Conflict": ("Its state does not allow this", 1, "409"),
    "Unavailable": ("A library, a tool or a device is missing", 1, "501"),
    "InternalError": ("A defect, or a full or broken disk, on our side", 1, "500 or 507"),
}
FAMILIES = {**{name: name for name in MEANING}, "OverBudget": "RefusedInput"}
VARIABLE = {"what": ("image", "machine")}


@dataclass(frozen=True, order=True)
class Code:
    """One code of one family, with its message where that is written beside it."""

    family: str
    code: str
    message: str


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """The whole page."""
    lines = [
        "# Error codes",
        "",
        "Made from the source by `python -m tools.error_codes`. A code is stable; the words beside it are an example,",
        "with … for what varies. Python raises the family (`atelier.errors`), its exit code ends the",
        "command line, and HTTP answers its status.",
    ]
    found = sorted(codes())
    for family, (meaning, exit_code, status) in MEANING.items():
        lines += [
            "",
            f"## {family}",
            "",
            f"{meaning}. Exit code {exit_code}, HTTP {status}.",
            "",
            "| code | for example |",
            "|---|---|",
        ]
        seen: dict[str, str] = {}
        for each in found:
            if each.family == family:
                seen[each.code] = max(seen.get(each.code, ""), each.message, key=len)
        lines += [f"| `{code}` | {message.replace('|', '¦')} |" for code, message in sorted(seen.items())]
    return "\n".join(lines) + "\n"


def codes() -> Iterator[Code]:
    """Every code that the package can raise."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in FAMILIES
                and node.args
            ):
                message = _words(node.args[1]) if len(node.args) > 1 else ""
                for code in _codes_of(node.args[0]):
                    yield Code(FAMILIES[node.func.id], code, message)


def _codes_of(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        names = [
            part.value.id
            for part in node.values
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name)
        ]
        if names in [[name] for name in VARIABLE]:
            return [_filled(node, value) for value in VARIABLE[names[0]]]
    return []


def _filled(node: ast.JoinedStr, value: str) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else value for part in node.values)


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    if isinstance(node, ast.JoinedStr):
        return " ".join(
            "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values).split()
        )
    if isinstance(node, ast.BinOp):
        return f"{_words(node.left)}{_words(node.right)}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
