"""Runs in the image ``tensorflow``: exports models, good and bad ones, and prints what happened as JSON."""

import tempfile

import export_contract as contract
import keras
import numpy as np
import tensorflow as tf

from atelier.exporters import export

keras.utils.set_random_seed(0)
layers = keras.layers
random = np.random.default_rng(0)


def images():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, random.random((5, 8, 8, 1))


def two_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate()([a, b])
    model = keras.Model([a, b], {"sum": layers.Dense(2)(joined), "top": layers.Dense(3)(joined)})
    return model, (random.random((5, 4)), random.random((5, 3)))


def named_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate()([a, b])
    model = keras.Model({"a": a, "b": b}, [layers.Dense(2)(joined), layers.Dense(3)(joined)])
    return model, {"b": random.random((5, 3)), "a": random.random((5, 4))}


def tokens():
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int64", name="tokens"),
            layers.Embedding(10, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    return model, random.integers(0, 10, (5, 6)), {"tokens": {1: "time"}}


def recurrent():
    return keras.Sequential([keras.Input((6, 4)), layers.LSTM(8), layers.Dense(3)]), random.random((5, 6, 4))


def start(self):
    keras.Model.__init__(self)
    self.layer = layers.Dense(3)


def subclass(call):
    model = type("Own", (keras.Model,), {"__init__": start, "call": call})()
    return model, random.random((5, 4)).astype("float32")


def plain(self, x):
    return self.layer(x)


def wrong_when_traced(self, x):
    return self.layer(x) * (1.0 if tf.executing_eagerly() else 1.05)


def data_dependent(self, x):
    if float(keras.ops.sum(x)) > 0:
        return self.layer(x)
    return -self.layer(x)


def always_dropout(self, x):
    return tf.nn.dropout(self.layer(x), 0.5)


def gelu():
    return keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="gelu")]), random.random((5, 4))


def soft_gelu():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.Activation(lambda x: keras.activations.gelu(x, True))]
    )
    return model, random.random((5, 4))


GOOD = {
    "images": images,
    "two-inputs": two_inputs,
    "named-inputs": named_inputs,
    "tokens": tokens,
    "recurrent": recurrent,
    "subclass": lambda: subclass(plain),
    "soft-gelu": soft_gelu,
}
BAD = {
    "wrong-when-traced": lambda: subclass(wrong_when_traced),
    "data-dependent": lambda: subclass(data_dependent),
    "always-dropout": lambda: subclass(always_dropout),
    "gelu": gelu,
    "pickled": lambda: ({"weights": 1}, random.random((5, 4))),
}


def unchanged():
    model, example = images()
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [variable.numpy().copy() for variable in model.variables]
    with tempfile.TemporaryDirectory() as temporary:
        export(model, example, formats=["onnx", "savedmodel", "safetensors"], out=f"{temporary}/p")
    same = all(np.array_equal(one, two.numpy()) for one, two in zip(before, model.variables, strict=True))
    model.fit(example, np.zeros(5), epochs=1, verbose=0)
    return {"same": same, "trains_on": not np.array_equal(before[0], model.variables[0].numpy()),
            "tf32": tf.config.experimental.tensor_float_32_execution_enabled()}  # fmt: skip


contract.answer(
    {
        "contract": contract.check_all("keras", GOOD),
        "good": {
            name: contract.outcome(make, formats=("onnx", "savedmodel", "safetensors")) for name, make in GOOD.items()
        },
        "bad": {name: contract.outcome(make, formats="onnx") for name, make in BAD.items()},
        "gelu-savedmodel": contract.outcome(gelu, formats="savedmodel"),
        "unchanged": unchanged(),
    }
)
