"""One training step with TensorFlow and Keras, on the GPU when there is one: run with the interpreter of this image."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, activation="softmax")])
model.compile(optimizer=keras.optimizers.Adam(0.1), loss="sparse_categorical_crossentropy")
inputs, labels = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.zeros(8, dtype="int32")
before = model.evaluate(inputs, labels, verbose=0)
model.fit(inputs, labels, epochs=1, verbose=0)
after = model.evaluate(inputs, labels, verbose=0)
assert after < before, (before, after)
device = "cuda" if tf.config.list_physical_devices("GPU") else "cpu"
print(f"tensorflow {tf.__version__}, keras {keras.__version__} on {device}: loss {before:.3f} -> {after:.3f}")
