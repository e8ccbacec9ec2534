"""Exports in the real frameworks: exporters hold their contract, refusals say why, and wrong exports are refused."""

import json
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TORCH_GOOD = ["cnn", "states", "tokens", "tied", "half", "double", "gelu", "numpy", "one-row"]
KERAS_GOOD = ["images", "two-inputs", "named-inputs", "tokens", "recurrent", "subclass", "soft-gelu"]


def cases(python, script, folder):
    """What a script of cases printed, run by an image's interpreter on the tree as it is."""
    environ = os.environ | {
        "PYTHONPATH": str(ROOT / "extensions"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [python, str(HERE / script)], cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"stdout": done.stdout, "stderr": done.stderr}


@pytest.fixture(scope="module")
def torch_cases(pytorch_python, tmp_path_factory):
    return cases(pytorch_python, "export_cases_pytorch.py", tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def keras_cases(tensorflow_python, tmp_path_factory):
    return cases(tensorflow_python, "export_cases_keras.py", tmp_path_factory.mktemp("keras"))


pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", [f"{form}/{model}" for form in ("onnx", "pt2", "safetensors") for model in TORCH_GOOD])
def test_pytorch_exporters_hold_the_contract(torch_cases, name):
    assert torch_cases["contract"][name] == "held"


@pytest.mark.parametrize(
    "name", [f"{form}/{model}" for form in ("onnx", "savedmodel", "safetensors") for model in KERAS_GOOD]
)
def test_keras_exporters_hold_the_contract(keras_cases, name):
    assert keras_cases["contract"][name] == "held"


def equal_everywhere(outcome):
    assert outcome["code"] is None, outcome
    for report in outcome["report"]["formats"].values():
        assert report["verdict"] == "equal"
        assert {row["batch"] for row in report["batches"]} >= {1, 2, 7}
        assert all(row["labels_equal"] in {1.0, None} for row in report["batches"])
        assert report["size_bytes"] > 0


@pytest.mark.parametrize("name", TORCH_GOOD)
def test_pytorch_models_export_to_all_formats(torch_cases, name):
    equal_everywhere(torch_cases["good"][name])
    assert {"model.onnx", "model.pt2", "weights.safetensors", "model.json"} <= set(torch_cases["good"][name]["files"])


@pytest.mark.parametrize("name", KERAS_GOOD)
def test_keras_models_export_to_all_formats(keras_cases, name):
    equal_everywhere(keras_cases["good"][name])
    assert {"model.onnx", "saved_model/saved_model.pb", "weights.safetensors"} <= set(
        keras_cases["good"][name]["files"]
    )


def test_signatures_name_inputs_outputs_and_dynamic_dimensions(torch_cases, keras_cases):
    torch_good, keras_good = torch_cases["good"], keras_cases["good"]
    assert torch_good["states"]["inputs"] == {"x": ["batch", 5, 4], "h0": [2, "batch", 8], "c0": [2, "batch", 8]}
    assert torch_good["states"]["outputs"]["output_1_0"] == [2, "batch", 8]
    assert torch_good["tokens"]["outputs"] == {"logits": ["batch", 3], "pooled": ["batch", 4]}
    assert keras_good["images"]["inputs"] == {"image": ["batch", 8, 8, 1]}
    assert keras_good["two-inputs"]["outputs"] == {"sum": ["batch", 2], "top": ["batch", 3]}
    assert keras_good["tokens"]["inputs"] == {"tokens": ["batch", "time"]}


def test_a_dynamic_time_axis_is_verified_at_three_other_sizes(torch_cases):
    rows = torch_cases["good"]["tokens"]["report"]["formats"]["onnx"]["batches"]
    assert {row["dims"]["time"] for row in rows} == {2, 5, 6, 11}


def test_latency_compares_source_and_export_with_equal_threads(torch_cases, keras_cases):
    for outcome in (torch_cases["good"]["cnn"], keras_cases["good"]["images"]):
        latency = outcome["report"]["formats"]["onnx"]["latency_ms"]
        assert latency["source"] > 0
        assert latency["exported"] > 0
        assert latency["threads"] >= 1
        assert outcome["report"]["formats"]["safetensors"]["latency_ms"] is None


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("data-dependent", "data_dependent_control_flow", "if x.sum() > 0"),
        ("always-dropout", "not_deterministic", "asked twice"),
        ("counting", "not_deterministic", "asked twice"),
        ("wrong-when-exported", "parity_failed", "relative 0.05"),
        ("takes-a-dict", "unsupported_example", "forward(batch) has no argument 'a'"),
        ("returns-text", "unsupported_output", "output_1 is a str"),
        ("svd", "unsupported_operator", "svd"),
        ("fixed-batch", "forward_failed", "batch 3"),
        ("at-most-five", "dimension_not_dynamic", "batch"),
        ("states-without-dynamic", "forward_failed", "hidden[0]"),
        ("diverged", "not_finite", "NaN"),
        ("bfloat16", "unsupported_dtype", "bfloat16"),
        ("wrong-dtype", "forward_failed", "dtype"),
    ],
)
def test_what_pytorch_can_not_export_says_why_in_one_sentence(torch_cases, name, code, said):
    refused(torch_cases["bad"][name], code, said)


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("wrong-when-traced", "parity_failed", "relative 0.05"),
        ("data-dependent", "data_dependent_control_flow", "call()"),
        ("always-dropout", "not_deterministic", "asked twice"),
        ("gelu", "export_not_loadable", "Erfc"),
        ("pickled", "unsupported_model", "dict"),
    ],
)
def test_what_keras_can_not_export_says_why_in_one_sentence(keras_cases, name, code, said):
    refused(keras_cases["bad"][name], code, said)


def refused(outcome, code, said):
    assert outcome["code"] == code, outcome
    assert said in outcome["message"]
    assert len(outcome["message"].splitlines()) == 1
    assert outcome["hint"]
    assert outcome["left"] == [], "a refused export left something on the disk"


def test_exact_gelu_is_fine_as_a_savedmodel(keras_cases):
    equal_everywhere(keras_cases["gelu-savedmodel"])


def test_the_time_axis_that_pt2_freezes_is_named(torch_cases):
    assert torch_cases["lstm-time"]["code"] in {"export_not_runnable", "dimension_not_dynamic"}
    assert "time" in torch_cases["lstm-time"]["message"]


def test_labels_must_fit_the_output(torch_cases):
    assert torch_cases["labels"]["code"] == "labels_mismatch"


@pytest.mark.parametrize("name", ["perturbed", "training-mode"])
def test_a_really_wrong_export_is_refused_with_its_numbers(torch_cases, name):
    outcome = torch_cases[name]
    assert outcome["code"] == "parity_failed"
    assert outcome["left"] == []
    (report,) = outcome["detail"]["formats"].values()
    assert report["verdict"] == "different"
    assert len(report["batches"]) == 4
    assert max(float(row["max_abs"]) for row in report["batches"]) > report["tolerance"]["abs"]


def test_the_model_is_left_as_it_was(torch_cases, keras_cases):
    modes = torch_cases["modes"]
    assert modes["modes"] == [True, False, True]
    assert modes["trains_on"]
    assert modes["buffers_same"]
    assert keras_cases["unchanged"] == {"same": True, "trains_on": True, "tf32": True}


def test_steps_are_told_as_they_begin_and_end(torch_cases):
    steps = torch_cases["modes"]["steps"]
    assert steps[:4] == ["check begun", "check done", "write onnx begun", "write onnx done"]
    assert steps[-1] == "package done"
    assert len(steps) == 16
    assert torch_cases["modes"]["seconds_known"]


def test_an_onnx_file_without_its_weights_is_no_package(torch_cases):
    external = torch_cases["external"]
    assert "model.onnx.data" in external["files"]
    assert external["code"] == "package_incomplete"
    assert external["detail"] == {"missing": ["model.onnx.data"]}


def test_files_run_without_the_models_code_under_the_signatures_names(torch_cases):
    elsewhere = torch_cases["elsewhere"]
    assert elsewhere["inputs"] == {"tokens": ["batch", "time"]}
    assert elsewhere["outputs"] == {"logits": ["batch", 3], "pooled": ["batch", 4]}
    assert elsewhere["gap"] < 1e-5


def test_converters_keep_quiet(torch_cases, keras_cases):
    for name in ("stdout", "stderr"):
        assert "torchvision" not in torch_cases[name]
        assert "def forward" not in torch_cases[name]
    assert "tf2onnx" not in keras_cases["stderr"]
