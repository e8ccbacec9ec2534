"""Work for the tests in browsers: a notebook of the example's shape, and a gate by which its training is held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.browser.page_driver import write_notebook
from tests.hub_driver import wait_for

PARAMETERS = """\
epochs: int = 2  # passes over the lines
pause_s: float = 0.0  # seconds of rest after each
gate: str = ""  # a folder in which the file "hold" stops the training, and "end" ends it early
model_name: str = "tiny-lstm"  # name in the model registry"""
SETUP = """\
import time
from pathlib import Path

import torch
from torch import nn

import atelier
from reader import Reader

job = atelier.current_run()
torch.manual_seed(0)
torch.set_num_threads(1)"""
TRAIN = """\
model = Reader(input_size=8, hidden_size=16, num_layers=1, num_classes=3)
lines, classes = torch.randn(64, 12, 8), torch.randint(0, 3, (64,))
optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
for epoch in job.track(range(epochs)):
    scores = model(lines)
    loss = nn.functional.cross_entropy(scores, classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    accuracy = (scores.argmax(dim=1) == classes).float().mean().item()
    job.log(step=epoch + 1, loss=loss.item(), accuracy=accuracy)
    print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    time.sleep(pause_s)
    while gate and (Path(gate) / "hold").exists():
        (Path(gate) / "stands").touch()
        time.sleep(0.05)
    if gate and (Path(gate) / "end").exists():
        break
torch.save(model.state_dict(), "model.pt")"""
EXPORT = """\
package = atelier.export(model, lines[:8], formats=["onnx"], name=model_name, labels=["a", "b", "c"])
package"""
MODULE = '''\
from torch import nn


class Reader(nn.Module):
    """The shape of the example's model: an LSTM whose last step goes into a linear layer."""

    def __init__(self, input_size, hidden_size, num_layers, num_classes):
        super().__init__()
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
        self.linear = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        start = x.new_zeros(self.num_layers, x.size(0), self.hidden_size)
        states, _ = self.lstm(x, (start, start))
        return self.linear(states[:, -1])
'''
STEPS = """\
import time
from pathlib import Path

import atelier

job = atelier.current_run()
Path("plan.txt").write_text("as far as the gate lets it")
job.save("plan.txt")
for step in job.track(range(count)):
    job.log(step=step + 1, loss=1 / (step + 1))
    print(f"step {step + 1}", flush=True)
    time.sleep(0.2)
    while (Path(gate) / "hold").exists():
        (Path(gate) / "stands").touch()
        time.sleep(0.05)
    if (Path(gate) / "end").exists():
        break
Path("notes.txt").write_text("as far as it went")"""


@dataclass(frozen=True)
class Gate:
    """A folder by which a training is held, so that a moving thing can be compared, and ended."""

    folder: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """The training stands still meanwhile, at the end of a step."""
        stands = self.folder / "stands"
        stands.unlink(missing_ok=True)
        (self.folder / "hold").touch()
        wait_for("the training to stand still", stands.exists, timeout_s=60)
        yield
        (self.folder / "hold").unlink()

    def end(self) -> None:
        """Have the training end before its last epoch."""
        (self.folder / "end").touch()

    def reopen(self) -> None:
        """Let the next training go on to its last epoch."""
        (self.folder / "end").unlink()


def write_training(folder: Path) -> None:
    """``train.ipynb`` with a module of its own beside it, and ``send.ipynb`` with a form for it."""
    write_notebook(folder / "train.ipynb", SETUP, TRAIN, EXPORT, parameters=PARAMETERS)
    (folder / "reader.py").write_text(MODULE)
    write_notebook(folder / "send.ipynb", "from atelier.widgets import TrainForm\nTrainForm('train.ipynb')", "")


def write_steps(folder: Path) -> Gate:
    """``steps.ipynb``, which needs no framework and goes on until its gate ends it; ``watch.ipynb`` shows its run."""
    gate = Gate(folder / "gate")
    gate.folder.mkdir(parents=True)
    write_notebook(folder / "steps.ipynb", STEPS, parameters=f"count: int = 2000\ngate: str = {str(gate.folder)!r}")
    write_notebook(folder / "watch.ipynb", "import atelier\natelier.submit('steps.ipynb')", "")
    return gate
