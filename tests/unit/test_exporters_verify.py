"""Parity: what counts as equal, and that a wrong export is found at whatever size it is wrong."""

import time
from contextlib import nullcontext

import numpy as np
import pytest

from atelier.errors import RefusedInput
from atelier.exporters.report import BatchParity, Tolerance, tolerance_for
from atelier.exporters.signature import Signature, TensorSpec
from atelier.exporters.verify import alternate, check_source, differences, measure_latency, verify

EXACT = Tolerance(abs=0, rel=0)
USUAL = tolerance_for("float32")


class LinearSource:
    """A model of one matrix in NumPy: a whole `Source`, with no framework behind it."""

    framework = "numpy"
    model = None
    threads = 1

    def __init__(self, *, time_axis: bool = False) -> None:
        random = np.random.default_rng(0)
        self.weights = random.normal(size=(4, 3)).astype("float32")
        shape = (5, 6, 4) if time_axis else (5, 4)
        self.example = (random.normal(size=shape).astype("float32"),)
        middle = ["time"] if time_axis else []
        self.signature = Signature(
            inputs=[TensorSpec(name="x", dtype="float32", shape=["batch", *middle, 4])],
            outputs=[TensorSpec(name="output", dtype="float32", shape=["batch", *middle, 3])],
        )

    def inference(self):
        return nullcontext()

    def predict(self, inputs):
        return (inputs[0] @ self.weights,)

    predict_fast = predict

    def versions(self):
        return {"numpy": np.__version__}


def test_an_equal_export_is_equal_at_every_batch_size():
    source = LinearSource()
    found = verify(source, source.predict, tolerance=[USUAL])
    assert found.equal
    assert [row.batch for row in found.batches] == [1, 2, 7, 32]
    assert all(row.max_abs == 0 and row.labels_equal == 1 for row in found.batches)


def test_every_claimed_dimension_is_tried_at_three_sizes():
    source = LinearSource(time_axis=True)
    seen = set()

    def run(inputs):
        seen.add(inputs[0].shape)
        return source.predict(inputs)

    found = verify(source, run, tolerance=[USUAL])
    assert {row.dims["time"] for row in found.batches} == {3, 6, 7, 13}
    assert {(2, 3, 4), (2, 7, 4), (2, 13, 4), (1, 6, 4), (32, 6, 4)} <= seen


def test_perturbed_weights_are_found():
    source = LinearSource()
    found = verify(source, lambda inputs: (inputs[0] @ (source.weights * 1.01),), tolerance=[USUAL])
    assert not found.equal
    assert found.batches[0].max_rel == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("wrong_at", [1, 2, 7, 32])
def test_one_wrong_batch_size_is_enough(wrong_at):
    source = LinearSource()

    def run(inputs):
        (answer,) = source.predict(inputs)
        return (answer + (0.1 if len(inputs[0]) == wrong_at else 0),)

    found = verify(source, run, tolerance=[USUAL])
    assert [row.batch for row in found.batches if not row.within] == [wrong_at]


def test_an_export_that_is_right_on_the_example_only_is_found():
    source = LinearSource()

    def run(inputs):
        known = np.isin(inputs[0], source.example[0]).all()
        return tuple(answer if known else answer * 1.5 for answer in source.predict(inputs))

    assert not verify(source, run, tolerance=[USUAL]).equal


def test_an_export_that_freezes_a_size_is_refused_with_that_size():
    source = LinearSource()

    def run(inputs):
        if len(inputs[0]) != 2:
            raise ValueError("Got: 1 Expected: 2")
        return source.predict(inputs)

    with pytest.raises(RefusedInput, match="batch 1") as refusal:
        verify(source, run, tolerance=[USUAL])
    assert refusal.value.code == "export_not_runnable"
    assert refusal.value.detail == {"sizes": {"batch": 1}}


def test_swapped_labels_show_in_the_label_agreement():
    source = LinearSource()
    found = verify(source, lambda inputs: (source.predict(inputs)[0][:, ::-1],), tolerance=[USUAL])
    assert found.batches[-1].labels_equal < 0.7


@pytest.mark.parametrize(
    ("source", "exported", "tolerance", "absolute", "within"),
    [
        ([1.0, 2.0], [1.0, 2.0], EXACT, 0.0, True),
        ([1.0, 2.0], [1.0, 2.00005], USUAL, 5e-5, True),
        ([1.0, 2.0], [1.0, 2.1], USUAL, 0.1, False),
        ([1000.0], [1000.9], USUAL, 0.9, True),
        ([0.0], [0.00009], USUAL, 9e-5, True),
        ([np.nan, 1.0], [np.nan, 1.0], EXACT, 0.0, True),
        ([np.inf], [np.inf], EXACT, 0.0, True),
        ([np.nan], [1.0], USUAL, np.inf, False),
        ([1.0], [np.nan], USUAL, np.inf, False),
        ([np.inf], [-np.inf], USUAL, np.inf, False),
        ([1.0], [[1.0]], USUAL, np.inf, False),
        ([], [], EXACT, 0.0, True),
    ],
)
def test_differences(source, exported, tolerance, absolute, within):
    found = differences(np.array(source), np.array(exported), tolerance)
    assert found[0] == pytest.approx(absolute, rel=1e-6)
    assert found[2] is within


def test_integers_are_equal_or_not():
    assert differences(np.array([1, 2]), np.array([1, 3]), tolerance_for("int64"))[2] is False
    assert differences(np.array([True]), np.array([False]), tolerance_for("bool"))[2] is False


def test_an_infinite_difference_goes_into_json_as_text():
    row = BatchParity(batch=1, max_abs=float("inf"), max_rel=float("nan"), labels_equal=None, within=False)
    assert '"max_abs":"inf"' in row.model_dump_json()
    assert BatchParity.model_validate_json(row.model_dump_json()) == row


def test_a_model_that_draws_random_numbers_is_no_reference():
    source = LinearSource()
    source.predict = lambda inputs: (np.random.default_rng().normal(size=(len(inputs[0]), 3)),)
    with pytest.raises(RefusedInput) as refusal:
        check_source(source, tolerance=[USUAL])
    assert refusal.value.code == "not_deterministic"


def test_a_model_that_diverged_is_no_reference():
    source = LinearSource()
    source.weights[0, 0] = np.nan
    with pytest.raises(RefusedInput) as refusal:
        check_source(source, tolerance=[USUAL])
    assert refusal.value.code == "not_finite"


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, (1e-4, 1e-3)), (0.5, (0.5, 0.5)), (0, (0, 0)), ({"abs": 1.0}, (1.0, 1e-3)), ({"abs": 1, "rel": 2}, (1, 2))],
)
def test_tolerance_is_the_dtypes_or_the_users(given, expected):
    found = tolerance_for("float32", given)
    assert (found.abs, found.rel) == expected


@pytest.mark.parametrize("given", [-1, "much", True, float("nan"), float("inf"), {"ab": 1}, {"abs": -1}])
def test_what_is_no_tolerance_is_refused(given):
    with pytest.raises(RefusedInput) as refusal:
        tolerance_for("float32", given)
    assert refusal.value.code == "bad_tolerance"


def test_latency_is_measured_in_turns_and_told_apart():
    calls = []
    slow, fast = alternate(lambda: (calls.append("a"), time.sleep(0.01)), lambda: calls.append("b"))
    assert slow > 9 > fast
    assert "abba" in "".join(calls)


def test_latency_says_its_batch_and_threads():
    source = LinearSource()
    found = measure_latency(source, source.predict, batch=7)
    assert (found.batch, found.threads) == (7, 1)
    assert found.source > 0
    assert found.exported > 0
