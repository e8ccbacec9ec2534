"""What every exporter must hold, checked inside an image: `check` raises AssertionError with what did not."""

import hashlib
import json
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from atelier.errors import AtelierError
from atelier.exporters import ModelPackage, export
from atelier.exporters.formats import EXPORTERS, make_source
from atelier.exporters.package import refuse_pickles
from atelier.exporters.report import tolerance_for
from atelier.exporters.verify import verify


def fingerprint(source):
    """A digest of all weights and modes of a source's model."""
    digest = hashlib.sha256()
    if source.framework == "pytorch":
        for name, tensor in sorted(source.model.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        digest.update(str([module.training for module in source.model.modules()]).encode())
    else:
        for variable in source.model.variables:
            digest.update(variable.path.encode() + variable.numpy().tobytes())
    return digest.hexdigest()


def check(exporter, model, example, dynamic=None):
    """One exporter on one model."""
    source = make_source(model, example, dynamic=dynamic)
    before = fingerprint(source)
    tolerance = [tolerance_for(spec.dtype) for spec in source.signature.outputs]
    with tempfile.TemporaryDirectory() as temporary, source.inference():
        first, second, moved = (Path(temporary, name) for name in ("first", "second", "moved"))
        first.mkdir()
        second.mkdir()
        details = exporter.write(source, first)
        json.dumps(details, allow_nan=False)
        assert list(first.rglob("*")), "write() left no file"
        refuse_pickles(first)
        shutil.move(first, moved)
        run = exporter.load(source, moved)
        found = verify(source, run, tolerance=tolerance)
        assert found.equal, found.batches
        answer = run(source.example)
        assert [str(array.dtype) for array in answer] == [spec.dtype for spec in source.signature.outputs]
        exporter.write(source, second)
        again = exporter.load(source, second)(source.example)
        assert all(np.array_equal(one, two) for one, two in zip(answer, again, strict=True)), "a second write differs"
    assert fingerprint(source) == before, "the model was changed"


def check_all(framework, models):
    """Every exporter of a framework on every model: ``{"format/model": "held" | what did not}``."""
    results = {}
    for exporter in EXPORTERS:
        for name, make in models.items():
            if exporter.framework == framework:
                try:
                    check(exporter, *make())
                    results[f"{exporter.format}/{name}"] = "held"
                except Exception:  # reported to the test, which fails with it
                    results[f"{exporter.format}/{name}"] = traceback.format_exc()
    return results


def outcome(make, **options):
    """What `export` does with a model: its refusal, or its report and a few facts."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "package")
        try:
            model, example, *dynamic = make()
            if dynamic:
                options["dynamic"] = dynamic[0]
            package = export(model, example, out=out, **options)
        except AtelierError as refusal:
            return {"code": refusal.code, "message": refusal.message, "hint": refusal.hint, "detail": refusal.detail,
                    "left": sorted(path.name for path in Path(temporary).iterdir())}  # fmt: skip
        card = ModelPackage.read(out).card
        return {
            "code": None,
            "report": package.report,
            "inputs": {spec.name: spec.shape for spec in card.signature.inputs},
            "outputs": {spec.name: spec.shape for spec in card.signature.outputs},
            "files": sorted(path.relative_to(out).as_posix() for path in package.files),
            "text": repr(package),
            "seconds": time.monotonic() - begin,
        }


def answer(results):
    """Print the results as the last line, where the test looks for them."""
    sys.stdout.flush()
    print("\n" + json.dumps(results, allow_nan=False))
