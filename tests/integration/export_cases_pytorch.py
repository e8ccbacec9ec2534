"""Runs in the image ``pytorch``: exports models, good and bad ones, and prints what happened as JSON."""

import copy
import tempfile
from pathlib import Path

import export_contract as contract
import numpy as np
import torch
from torch import nn

from atelier.errors import RefusedInput
from atelier.exporters import Step, check_package, export
from atelier.exporters.formats import make_source
from atelier.exporters.pipeline import Draft, build
from atelier.exporters.torch_export import TorchExport
from atelier.exporters.torch_onnx import TorchOnnx

torch.manual_seed(0)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3)
        self.normal = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4 * 36, 10)

    def forward(self, image):
        return self.linear(self.dropout(self.normal(self.convolution(image)).relu().flatten(1)))


class States(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, 2, batch_first=True)

    def forward(self, x, h0, c0):
        return self.lstm(x, (h0, c0))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.linear = nn.Linear(4, 3)

    def forward(self, tokens):
        pooled = self.embedding(tokens).mean(1)
        return {"logits": self.linear(pooled), "pooled": pooled}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.linear = nn.Linear(4, 10, bias=False)
        self.linear.weight = self.embedding.weight

    def forward(self, tokens):
        return self.linear(self.embedding(tokens))


def forward_only(forward):
    """A module that has one layer and this forward()."""

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.calls = 0

    Module.forward = forward
    return Module()


def data_dependent(self, x):
    if x.sum() > 0:
        return self.layer(x)
    return -self.layer(x)


def always_dropout(self, x):
    return nn.functional.dropout(self.layer(x))


def counting(self, x):
    self.calls += 1
    return self.layer(x) + 0.01 * self.calls


def wrong_when_exported(self, x):
    return self.layer(x) * (1.05 if torch.compiler.is_exporting() else 1.0)


def takes_a_dict(self, batch):
    return self.layer(batch["a"])


def returns_text(self, x):
    return self.layer(x), "text"


def svd(self, x):
    return torch.linalg.svdvals(x)


def fixed_batch(self, x):
    return self.layer(x).reshape(2, 3)


def at_most_five(self, x):
    return self.layer(x) + torch.ones(5, 3)[: x.shape[0]]


X = torch.randn(5, 4)
STATES = (torch.randn(2, 5, 4), torch.zeros(2, 2, 8), torch.zeros(2, 2, 8))
BATCH_SECOND = {"h0": {1: "batch"}, "c0": {1: "batch"}}
GOOD = {
    "cnn": lambda: (Cnn(), torch.randn(5, 1, 8, 8)),
    "states": lambda: (States(), STATES, BATCH_SECOND),
    "tokens": lambda: (Tokens(), {"tokens": torch.randint(0, 10, (3, 5))}, {"tokens": {1: "time"}}),
    "tied": lambda: (Tied(), torch.randint(0, 10, (3, 5))),
    "half": lambda: (nn.Linear(4, 3).half(), X.half()),
    "double": lambda: (nn.Linear(4, 3).double(), X.double()),
    "gelu": lambda: (nn.Sequential(nn.Linear(4, 3), nn.GELU()), X),
    "numpy": lambda: (nn.Linear(4, 3), np.random.default_rng(0).random((3, 4))),
    "one-row": lambda: (nn.Linear(4, 3), X[:1]),
}
BAD = {
    "data-dependent": lambda: (forward_only(data_dependent), X),
    "always-dropout": lambda: (forward_only(always_dropout), X),
    "counting": lambda: (forward_only(counting), X),
    "wrong-when-exported": lambda: (forward_only(wrong_when_exported), X),
    "takes-a-dict": lambda: (forward_only(takes_a_dict), {"a": X}),
    "returns-text": lambda: (forward_only(returns_text), X),
    "svd": lambda: (forward_only(svd), torch.randn(3, 4, 4)),
    "fixed-batch": lambda: (forward_only(fixed_batch), X),
    "at-most-five": lambda: (forward_only(at_most_five), X),
    "states-without-dynamic": lambda: (States(), STATES),
    "diverged": lambda: (nn.Linear(4, 3), torch.full((2, 4), float("nan"))),
    "bfloat16": lambda: (nn.Linear(4, 3).bfloat16(), X.bfloat16()),
    "wrong-dtype": lambda: (nn.Linear(4, 3), X.int()),
}


class PerturbedOnnx(TorchOnnx):
    """Spoils one weight in 100 by 5 % in the file that it wrote."""

    def write(self, source, folder):
        import onnx
        from onnx import numpy_helper

        details = super().write(source, folder)
        model = onnx.load(str(folder / "model.onnx"))
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = numpy_helper.to_array(weights).copy()
        values.flat[::100] *= 1.05
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        onnx.save(model, str(folder / "model.onnx"))
        return details


class TrainingModeExport(TorchExport):
    """Captures the module in training mode, with its dropout at work."""

    def write(self, source, folder):
        source.model.train()
        try:
            return super().write(source, folder)
        finally:
            source.model.eval()


def built_with(exporter):
    source = make_source(Cnn().eval(), torch.randn(5, 1, 8, 8))
    draft = Draft(name="spoiled", labels=None, metrics={}, datasets=())
    with tempfile.TemporaryDirectory() as temporary:
        try:
            build(source, [exporter], draft=draft, tolerance=None, out=Path(temporary, "out"), on_step=print)
        except RefusedInput as refusal:
            return {
                "code": refusal.code,
                "detail": refusal.detail,
                "left": [path.name for path in Path(temporary).iterdir()],
            }
    return {"code": None}


def modes_and_weights():
    model = Cnn().train()
    model.normal.eval()
    optimizer = torch.optim.Adam(model.parameters())
    before = copy.deepcopy(model.state_dict())
    steps = []
    with tempfile.TemporaryDirectory() as temporary:
        export(model, torch.randn(5, 1, 8, 8), formats=["onnx", "pt2"], out=f"{temporary}/p", on_step=steps.append)
    loss = model(torch.randn(2, 1, 8, 8)).sum()
    loss.backward()
    optimizer.step()
    return {
        "modes": [model.training, model.normal.training, model.dropout.training],
        "trains_on": bool((model.linear.weight != before["linear.weight"]).any()),
        "buffers_same": bool((model.normal.running_mean == before["normal.running_mean"]).all()),
        "steps": [
            f"{step.name} {step.format} {step.state}".replace("  ", " ") for step in steps if isinstance(step, Step)
        ],
        "seconds_known": all(step.seconds is not None for step in steps if step.state == "done"),
    }


def external_data():
    """An ONNX model in two files is whole only with both."""
    source = make_source(nn.Linear(400, 300), torch.randn(3, 400))
    draft = Draft(name="big", labels=None, metrics={}, datasets=())
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "out")
        package = build(
            source, [TorchOnnx(single_file_limit_bytes=0)], draft=draft, tolerance=None, out=out, on_step=print
        )
        files = [path.name for path in package.files]
        manifest = (out / "MANIFEST.sha256").read_text().splitlines(keepends=True)
        (out / "model.onnx.data").unlink()
        (out / "MANIFEST.sha256").write_text("".join(line for line in manifest if "onnx.data" not in line))
        try:
            check_package(out)
        except RefusedInput as refusal:
            return {"files": files, "code": refusal.code, "detail": refusal.detail}
    return {"files": files, "code": None}


def runs_elsewhere():
    """The .onnx and .pt2 give the same without the model's code, under the names of the signature."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as temporary:
        model, example, dynamic = GOOD["tokens"]()
        package = export(model, example, formats=["onnx", "pt2"], dynamic=dynamic, out=f"{temporary}/p")
        session = onnxruntime.InferenceSession(str(package.folder / "model.onnx"))
        tokens = torch.randint(0, 10, (6, 9))
        logits, _ = session.run(["logits", "pooled"], {"tokens": tokens.numpy()})
        again = torch.export.load(str(package.folder / "model.pt2")).module()(tokens=tokens)["logits"]
        wanted = model.eval()(tokens)["logits"].detach().numpy()
        return {
            "inputs": {value.name: value.shape for value in session.get_inputs()},
            "outputs": {value.name: value.shape for value in session.get_outputs()},
            "gap": float(max(np.abs(logits - wanted).max(), np.abs(again.detach().numpy() - wanted).max())),
        }


contract.answer(
    {
        "contract": contract.check_all("pytorch", GOOD),
        "good": {name: contract.outcome(make, formats=("onnx", "pt2", "safetensors")) for name, make in GOOD.items()},
        "bad": {name: contract.outcome(make, formats="onnx") for name, make in BAD.items()},
        "lstm-time": contract.outcome(lambda: (States(), STATES, BATCH_SECOND | {"x": {1: "time"}}), formats=["pt2"]),
        "labels": contract.outcome(lambda: (nn.Linear(4, 3), X), labels=["a"]),
        "perturbed": built_with(PerturbedOnnx()),
        "training-mode": built_with(TrainingModeExport()),
        "modes": modes_and_weights(),
        "external": external_data(),
        "elsewhere": runs_elsewhere(),
    }
)
