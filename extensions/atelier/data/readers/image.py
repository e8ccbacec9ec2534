"""Images: a thumbnail as PNG. The whole file has to be read, and what has too many pixels is not unpacked."""

from __future__ import annotations

import base64
import io
from typing import Any

from atelier.data.readers.subject import Plan, Shown, Subject
from atelier.errors import RefusedInput
from atelier.libraries import library

MAX_PIXELS = 64_000_000
"""Most pixels that are unpacked for a thumbnail (256 MB); a JPEG, unpacked at an eighth, may have 64 times as many."""

THUMBNAIL_PIXELS = 512
"""Longest side of the thumbnail."""

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_HEAD_BYTES = 256 * 1024


def plan_image(subject: Subject) -> Plan:
    """The whole file; over the budget only its head, for the size in pixels."""
    size_bytes = subject.reader.size_bytes
    why = "an image is read whole"
    facts: dict[str, Any] = {}
    if size_bytes > subject.reader.budget.left_bytes:
        facts = _size_of(subject.reader.at(0, min(_HEAD_BYTES, subject.reader.budget.left_bytes)))
    return Plan(size_bytes, why, lambda: _read(subject), facts)


def _size_of(head: bytes) -> dict[str, Any]:
    """Width, height and format, as far as the head tells them; the file's end may be needed for it."""
    try:
        return _facts(_opened(head))
    except RefusedInput:
        return {}


def _facts(image: Any) -> dict[str, Any]:
    facts = {"format": image.format, "width": image.width, "height": image.height, "mode": image.mode}
    frames = getattr(image, "n_frames", 1) if image.format == "GIF" else 1
    return facts | ({"frames": frames} if frames > 1 else {})


def _opened(content: bytes) -> Any:
    pillow = library("PIL.Image", extra="pillow", purpose="A preview of images")
    try:
        return pillow.open(io.BytesIO(content), formats=_FORMATS)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as problem:
        raise _bomb("more pixels than any picture") from problem
    except pillow.UnidentifiedImageError as problem:  # its own words name an object of this process
        raise _broken("it does not begin as one") from problem
    except (OSError, ValueError, SyntaxError, EOFError) as problem:
        raise _broken(problem) from problem


def _broken(problem: Exception | str) -> RefusedInput:
    return RefusedInput("broken_file", f"The image is broken: {str(problem)[:200]}", hint="Write it again.")


def _bomb(size: str) -> RefusedInput:
    return RefusedInput(
        "image_too_large",
        f"The image has {size}, too many for a preview.",
        hint="Open it in your own code, where memory is yours.",
    )


def _read(subject: Subject) -> Shown:
    image = _opened(subject.reader.at(0, subject.reader.size_bytes))
    facts = {"format": image.format, "width": image.width, "height": image.height, "mode": image.mode}
    thumbnail = _thumbnail(image)
    content = io.BytesIO()
    thumbnail.save(content, "PNG")
    shown = {
        "png_base64": base64.b64encode(content.getvalue()).decode(),
        "width": facts["width"],
        "height": facts["height"],
    }
    smaller = max(facts["width"], facts["height"]) > THUMBNAIL_PIXELS
    return Shown(image=shown, facts=facts, note="Shown smaller than it is." if smaller else "")


def _thumbnail(image: Any) -> Any:
    transpose = library("PIL.ImageOps", extra="pillow", purpose="A preview of images").exif_transpose
    wanted = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
    image.draft("RGB", wanted)
    if image.width * image.height > MAX_PIXELS:
        raise _bomb(f"{image.width:,} × {image.height:,} pixels")
    try:
        image.load()
        turned = transpose(_eight_bit(image))
        turned.thumbnail(wanted)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as problem:
        raise _broken(problem) from problem
    return turned


def _eight_bit(image: Any) -> Any:
    """In a mode that PNG and every browser show; 16 bit and floating-point grey is stretched to its own range."""
    if image.mode in ("RGB", "RGBA", "L", "LA"):
        return image
    if image.mode.startswith(("I", "F")):
        low, high = image.getextrema()
        scale = 255.0 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L")
    return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
