#!/usr/bin/env python3
"""Makes the model zoo: the .onnx files, their samples and the held-out digits, the same bytes each time on one machine.

    python models/zoo/make_zoo.py                      all models
    python models/zoo/make_zoo.py mlp cnn              only these
    python models/zoo/make_zoo.py held-out             only the held-out digits that accuracy is measured on
    python models/zoo/make_zoo.py --out DIR            somewhere else than beside this script
    python models/zoo/make_zoo.py --held-out DIR       also write every held-out image and its label, for accuracy checks

Prints one line of measurements per model; all of them are taken from the written files with onnxruntime.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import onnxruntime

import zoo_data
import zoo_graphs
import zoo_train
from zoo_data import SEED, Digits
from zoo_train import Recipe

IMAGE_SAMPLES, TESTING_SAMPLES, ATTENTION_SAMPLES = 8, 4, 2
ATTENTION_LIMIT = 20.0
"""Largest magnitude that an activation of the untrained `attention` may reach on its samples."""


@dataclass(frozen=True)
class Trained:
    """A model trained on digits: its features, its start, its forward pass for training, and its graph."""

    features: Callable[[Digits, np.ndarray], np.ndarray]
    start: Callable[[np.random.Generator], dict]
    forward: zoo_train.Forward
    graph: Callable[[dict], onnx.ModelProto]
    recipe: Recipe
    parameters: int
    layers: int
    samples: int


TRAINED = {
    "mlp": Trained(
        features=lambda _, images: zoo_data.digits_5x5(images),
        start=lambda rng: zoo_train.dense_init(rng, [25, 10, 10, 10, 10, 10, 1], gain=2.0),
        forward=zoo_train.mlp,
        graph=zoo_graphs.mlp,
        recipe=Recipe(epochs=300, learning_rate=5e-3, weight_decay=2e-1),
        parameters=711,
        layers=12,
        samples=IMAGE_SAMPLES,
    ),
    "cnn": Trained(
        features=lambda _, images: zoo_data.digits_28x28(images),
        start=zoo_train.cnn_init,
        forward=zoo_train.cnn,
        graph=zoo_graphs.cnn,
        recipe=Recipe(epochs=40, learning_rate=2e-3, weight_decay=2e-1),
        parameters=26_461,
        layers=12,
        samples=IMAGE_SAMPLES,
    ),
    "mlp2": Trained(
        features=lambda _, images: zoo_data.digits_28x28(images),
        # Sigmoids shrink what passes through them: a larger start keeps the gradient alive.
        start=lambda rng: zoo_train.dense_init(rng, [784, 500, 250, 100, 50, 10, 1], gain=2.0),
        forward=zoo_train.mlp2,
        graph=zoo_graphs.mlp2,
        recipe=Recipe(epochs=80, learning_rate=1e-3, weight_decay=2e-1),
        parameters=548_421,
        layers=12,
        samples=IMAGE_SAMPLES,
    ),
    "testing": Trained(
        features=lambda data, images: zoo_data.principal_components(data.train_images, images),
        start=lambda rng: zoo_train.orthogonal_init(rng, [10] + [20] * 11 + [1]),
        forward=zoo_train.testing,
        graph=zoo_graphs.testing,
        recipe=Recipe(epochs=60, learning_rate=1e-3, weight_decay=2e-1),
        parameters=4_441,
        layers=12,
        samples=TESTING_SAMPLES,
    ),
}
NAMES = [*TRAINED, "attention", "held-out"]


def require(condition: bool, message: str) -> None:
    """Ends the program with a message when a written file is not what the zoo promises."""
    if not condition:
        sys.exit(f"error: {message}")


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(path: Path, inputs: np.ndarray) -> np.ndarray:
    """The model's output for each input [count, *input shape]; the models' batch is fixed, so one run each."""
    running = session(path)
    return np.stack([running.run(["output"], {"input": one})[0] for one in inputs])


def largest_activation(model: onnx.ModelProto, inputs: np.ndarray) -> float:
    """Largest magnitude of any float tensor that a node writes, over all inputs."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    floats = [info for info in model.graph.value_info if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    probed.graph.output.extend(floats)
    running = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return max(float(np.abs(tensor).max()) for one in inputs for tensor in running.run(None, {"input": one}))


def save_model(model: onnx.ModelProto, path: Path, parameters: int, layers: int) -> None:
    """Writes the file, reads it back, and checks counts and validity on what was read."""
    path.write_bytes(model.SerializeToString(deterministic=True))
    written = onnx.load(str(path))
    onnx.checker.check_model(written, full_check=True)
    counted = zoo_graphs.parameter_count(written)
    require(counted == parameters, f"{path.name} has {counted} parameters, expected {parameters}")
    names = [node.name for node in written.graph.node]
    scopes = {name.split("/")[1] if name.startswith("/") else name for name in names}
    require(len(scopes) == layers, f"{path.name} has {len(scopes)} layers, expected {layers}")
    require(len(set(names)) == len(names), f"{path.name} has two nodes of one name")


def make_trained(name: str, spec: Trained, data: Digits, out: Path, held_out_dir: Path | None) -> None:
    """Trains one model, writes it with its samples and labels, and prints what it does on held-out images."""
    train_inputs = spec.features(data, data.train_images)
    held_out_inputs = spec.features(data, data.held_out_images)
    weights = zoo_train.train(
        spec.forward, spec.start(np.random.default_rng(SEED + 2)), train_inputs, zoo_data.parity(data.train_classes), spec.recipe
    )
    path = out / f"{name}.onnx"
    model = spec.graph(weights)
    save_model(model, path, spec.parameters, spec.layers)

    # A model's input has a batch of one: sample i is inputs[i], shape [1, ...].
    singles = held_out_inputs[:, None]
    odd = data.held_out_classes % 2
    predicted = answers(path, singles).reshape(-1)
    train_predicted = answers(path, train_inputs[:, None]).reshape(-1)
    reference = np.asarray(spec.forward(weights, held_out_inputs, None))
    difference = float(np.abs(predicted - reference).max())
    require(difference < 1e-3, f"{name}.onnx differs from the trained function by {difference:.2e}")

    chosen = zoo_data.first_of_each_class(data.held_out_classes, spec.samples)
    write_samples(out / "samples", name, singles[chosen], odd[chosen])
    if held_out_dir is not None:
        write_samples(held_out_dir, name, singles, odd)
    accuracy = np.mean((predicted > 0) == (odd == 1))
    train_accuracy = np.mean((train_predicted > 0) == (data.train_classes % 2 == 1))
    error = np.sqrt(np.mean((predicted - zoo_data.parity(data.held_out_classes)) ** 2))
    right = int(np.sum((predicted[chosen] > 0) == (odd[chosen] == 1)))
    print(
        f"{name}: {spec.parameters} parameters, held-out accuracy {accuracy:.4f} (train {train_accuracy:.4f}), "
        f"held-out rmse {error:.4f}, samples right {right}/{spec.samples}, "
        f"largest weight {max(float(np.abs(w).max()) for w in weights.values()):.3f}, "
        f"largest activation {largest_activation(model, singles):.2f}",
        flush=True,
    )


def make_attention(data: Digits, out: Path) -> None:
    """Writes the untrained attention model and its samples, and checks that its activations stay small."""
    weights = zoo_train.attention_init(np.random.default_rng(SEED + 4))
    path = out / "attention.onnx"
    model = zoo_graphs.attention(weights)
    save_model(model, path, 1_191_936, 12)
    samples = zoo_data.embedded_sequences(data, ATTENTION_SAMPLES)
    np.save(out / "samples" / "attention.npy", samples)
    largest = largest_activation(model, samples)
    require(largest < ATTENTION_LIMIT, f"attention.onnx reaches {largest:.2f}, the limit is {ATTENTION_LIMIT}")
    outputs = answers(path, samples)
    print(
        f"attention: 1191936 parameters, untrained, largest activation {largest:.2f}, "
        f"largest input {np.abs(samples).max():.2f}, output deviation {outputs.std():.3f}",
        flush=True,
    )


def make_held_out(data: Digits, out: Path) -> None:
    """Writes the held-out images as they are, 0 to 16, with their digits, and the features that `testing` takes of them.

    What `mlp`, `cnn` and `mlp2` take is resampled from the images by whoever reads them, as `zoo_data.resample` does it.
    """
    folder = out / "held-out"
    folder.mkdir(exist_ok=True)
    pixels = np.round(data.held_out_images * 16).astype(np.uint8)
    require(np.array_equal(pixels / 16.0, data.held_out_images), "the digits have other values than 0 to 16")
    np.save(folder / "digits.npy", pixels)
    np.save(folder / "classes.npy", data.held_out_classes.astype(np.uint8))
    features = zoo_data.principal_components(data.train_images, data.held_out_images)
    np.save(folder / "testing.npy", np.ascontiguousarray(features[:, None]))
    print(f"held-out: {len(pixels)} digits, {np.sum(data.held_out_classes % 2)} of them odd", flush=True)


def write_samples(folder: Path, name: str, inputs: np.ndarray, labels: np.ndarray) -> None:
    np.save(folder / f"{name}.npy", np.ascontiguousarray(inputs, np.float32))
    np.save(folder / f"{name}.labels.npy", labels.astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the model zoo.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"any of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write to")
    parser.add_argument("--held-out", type=Path, help="folder for every held-out image and its label")
    arguments = parser.parse_args()
    for name in arguments.models:
        if name not in NAMES:
            parser.error(f"unknown model {name}; the zoo has {', '.join(NAMES)}")
    (arguments.out / "samples").mkdir(parents=True, exist_ok=True)
    if arguments.held_out is not None:
        arguments.held_out.mkdir(parents=True, exist_ok=True)
    data = zoo_data.digits()
    for name in arguments.models or NAMES:
        if name == "attention":
            make_attention(data, arguments.out)
        elif name == "held-out":
            make_held_out(data, arguments.out)
        else:
            make_trained(name, TRAINED[name], data, arguments.out, arguments.held_out)


if __name__ == "__main__":
    main()
