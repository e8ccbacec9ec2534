"""What goes in and what comes out: examples, dynamic dimensions, random inputs."""

import numpy as np
import pytest

from atelier.errors import RefusedInput
from atelier.exporters.learning import learn_signature
from atelier.exporters.signature import (
    Example,
    TensorSpec,
    claimed_dimensions,
    flatten_outputs,
    narrowed,
    random_like,
    read_example,
    resize,
)


def array_of(value):
    return value if isinstance(value, np.ndarray) else None


def read(example, names=("x", "y")):
    return read_example(example, to_array=array_of, names=names)


@pytest.mark.parametrize(
    ("example", "kind", "names"),
    [
        (np.ones(3), "one", ("x",)),
        ((np.ones(3), np.ones(2)), "many", ("x", "y")),
        ([np.ones(3), np.ones(2), np.ones(1)], "many", ("x", "y", "input_2")),
        ({"b": np.ones(3), "a": np.ones(2)}, "named", ("b", "a")),
    ],
)
def test_an_example_is_one_array_or_a_flat_collection(example, kind, names):
    found = read(example)
    assert (found.kind, found.names) == (kind, names)


@pytest.mark.parametrize(
    "example",
    [
        (),
        {},
        [1, 2],
        "text",
        None,
        {"a": {"b": np.ones(2)}},
        (np.ones(2), (np.ones(2),)),
        np.array(["a", None]),
        np.ones((0, 3)),
    ],
)
def test_what_is_no_example_is_refused_with_its_reason(example):
    with pytest.raises(RefusedInput) as refusal:
        read(example)
    assert refusal.value.code == "unsupported_example"
    assert "flat" in refusal.value.hint


def test_an_object_array_is_refused():
    with pytest.raises(RefusedInput, match="'x'"):
        read(np.array([{}, []], dtype=object))


def test_the_first_dimension_is_the_batch_where_nothing_else_is_said():
    example = read((np.ones((4, 5, 3)), np.ones((2, 4, 8))))
    claims = claimed_dimensions(example, {"y": {1: "batch"}})
    assert claims == {"x": {0: "batch"}, "y": {1: "batch"}}


def test_one_input_takes_the_short_form():
    assert claimed_dimensions(read(np.ones((4, 5))), {1: "time"}) == {"x": {0: "batch", 1: "time"}}


@pytest.mark.parametrize(
    "dynamic",
    [
        {"z": {0: "batch"}},
        {"x": {7: "time"}},
        {"x": {-1: "time"}},
        {"x": {1: "no name"}},
        {"x": {1: 5}},
        {"x": {"1": "time"}},
    ],
)
def test_claims_that_can_not_be_are_refused(dynamic):
    with pytest.raises(RefusedInput) as refusal:
        claimed_dimensions(read(np.ones((4, 5))), dynamic)
    assert refusal.value.code == "bad_dynamic"


def test_a_model_without_any_batch_is_refused():
    with pytest.raises(RefusedInput, match="batch"):
        claimed_dimensions(read(np.array(1.0)), None)


def test_outputs_are_named_by_their_place_or_key():
    value = (np.ones(1), {"h": np.ones(2), "c": np.ones(3)})
    assert [name for name, _ in flatten_outputs(value, array_of)] == ["output_0", "output_1_h", "output_1_c"]
    assert [name for name, _ in flatten_outputs({"logits": np.ones(1)}, array_of)] == ["logits"]
    assert [name for name, _ in flatten_outputs(np.ones(1), array_of)] == ["output"]


def test_an_output_that_is_no_tensor_is_refused_by_name():
    with pytest.raises(RefusedInput, match="output_1 is a str") as refusal:
        flatten_outputs((np.ones(1), "text"), array_of)
    assert refusal.value.code == "unsupported_output"


def test_resizing_repeats_rows_from_the_start():
    spec = TensorSpec(name="x", dtype="int64", shape=["batch", "time"])
    grown = resize(np.array([[1, 2], [3, 4]]), spec, {"batch": 3, "time": 3})
    assert grown.tolist() == [[1, 2, 1], [3, 4, 3], [1, 2, 1]]
    assert resize(grown, spec, {"batch": 1, "time": 1}).tolist() == [[1]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "int8", "uint8", "bool"])
def test_random_inputs_keep_dtype_and_range(dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    spec = TensorSpec(name="x", dtype=dtype, shape=["batch", 3])
    made = random_like(array, spec, {"batch": 500}, random=np.random.default_rng(0))
    assert made.dtype == array.dtype
    assert made.shape == (500, 3)
    assert made.min() >= 0
    assert made.max() <= 1
    assert len(np.unique(made)) >= 2


def test_random_tokens_are_tokens_that_the_example_has_room_for():
    spec = TensorSpec(name="x", dtype="int64", shape=["batch"])
    made = random_like(np.array([3, 9]), spec, {"batch": 1000}, random=np.random.default_rng(0))
    assert set(made) == set(range(3, 10))


def test_numpys_own_float64_becomes_what_the_model_computes_in():
    example = Example("named", ("a", "b", "c"), (np.ones(2), np.ones(2, dtype="int64"), np.ones(2)))
    found = narrowed(example, {"c": "float64"}, default="float32")
    assert [str(array.dtype) for array in found.arrays] == ["float32", "int64", "float64"]


def test_the_signature_is_learned_from_what_the_model_does():
    example = read((np.ones((4, 6, 3), dtype="float32"), np.ones((4,), dtype="int64")))
    claims = claimed_dimensions(example, {"x": {1: "time"}})

    def forward(inputs):
        x, _ = inputs
        return [("scores", x.sum(axis=1)), ("states", x), ("pairs", np.concatenate([x, x], axis=1))]

    found = learn_signature(example, claims, forward)
    assert [spec.shape for spec in found.inputs] == [["batch", "time", 3], ["batch"]]
    assert [spec.shape for spec in found.outputs] == [["batch", 3], ["batch", "time", 3], ["batch", "pairs_dim_1", 3]]
    assert found.dimensions == ["batch", "time"]


def test_a_model_that_takes_one_batch_size_only_says_so():
    example = read(np.ones((4, 6)))

    def forward(inputs):
        return [("output", inputs[0].reshape(2, 3, 2))]

    with pytest.raises(RefusedInput, match="batch 3") as refusal:
        learn_signature(example, claimed_dimensions(example, None), forward)
    assert refusal.value.code == "forward_failed"
    assert "x.shape[0]" in refusal.value.hint
