#!/usr/bin/env python3
"""Checks shards, or an answer computed elsewhere, against the whole model in onnxruntime.

    python check_shards.py MODEL.onnx SAMPLES.npy SHARD0.onnx SHARD1.onnx ... [--tolerance 1e-5]
    python check_shards.py MODEL.onnx SAMPLES.npy --compare ANSWER.json [--tolerance 1e-5]

Shards: every file passes the official ONNX checker (full check), and the shards, run one after another on every sample
with tensors matched by name, give the whole model's outputs. `--compare`: ANSWER.json holds
`{"outputs": [flat numbers], "input_index": i}`, which is compared with the whole model's outputs on sample i. Both may
be asked for at once.

Prints one JSON object on stdout. Exit codes: 0 all passed, 1 a check failed or a file is unusable (the reason is in
`error` and on stderr), 2 usage.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

Tensors = dict[str, np.ndarray]


class CheckFailed(Exception):
    """A check that did not pass, or a file that cannot be used; the message names which."""


class Runnable:
    """An ONNX file that passed the official checker, loaded into onnxruntime."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # By path, so that the checker also sees external data and files over 2 GiB.
            onnx.checker.check_model(str(path), full_check=True)
        except Exception as cause:
            raise CheckFailed(f"{path}: the ONNX checker refuses it: {cause}") from cause
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as cause:
            raise CheckFailed(f"{path}: onnxruntime cannot load it: {cause}") from cause
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def run(self, available: Tensors) -> Tensors:
        """Runs on the tensors it asks for by name; returns its outputs."""
        missing = [name for name in self.inputs if name not in available]
        if missing:
            raise CheckFailed(f"{self.path}: no earlier shard gives its input {', '.join(missing)}")
        try:
            results = self.session.run(self.outputs, {name: available[name] for name in self.inputs})
        except Exception as cause:
            raise CheckFailed(f"{self.path}: onnxruntime cannot run it: {cause}") from cause
        return dict(zip(self.outputs, results))


class Comparison:
    """The largest difference seen, absolute and relative to the range of the whole model's outputs."""

    def __init__(self) -> None:
        self.max_abs_error = 0.0
        self.lowest, self.highest = math.inf, -math.inf
        self.values = 0

    def add(self, expected: np.ndarray, found: np.ndarray, what: str) -> None:
        if expected.shape != found.shape:
            raise CheckFailed(f"{what}: shape {list(found.shape)}, the whole model gives {list(expected.shape)}")
        for values, whose in ((expected, "the whole model's"), (found, "the checked")):
            if not np.isfinite(values).all():
                raise CheckFailed(f"{what}: {whose} values are not all finite")
        if expected.size == 0:
            raise CheckFailed(f"{what}: no values to compare")
        # float64, so that the subtraction itself neither rounds nor wraps.
        wide = expected.astype(np.float64)
        self.max_abs_error = max(self.max_abs_error, float(np.abs(wide - found.astype(np.float64)).max()))
        self.lowest, self.highest = min(self.lowest, float(wide.min())), max(self.highest, float(wide.max()))
        self.values += expected.size

    def relative_error(self) -> float | None:
        """The error over the outputs' range (highest - lowest); None where all outputs are equal."""
        output_range = self.highest - self.lowest
        return self.max_abs_error / output_range if output_range > 0 else None

    def report(self, tolerance: float) -> dict:
        return {
            "ok": self.max_abs_error <= tolerance,
            "max_abs_error": self.max_abs_error,
            "max_error_over_range": self.relative_error(),
            "values": self.values,
            "tolerance": tolerance,
        }


def load_samples(path: Path, model: Runnable) -> np.ndarray:
    """The samples [count, *input shape], in the type and shape that the model's one input takes."""
    if len(model.inputs) != 1:
        raise CheckFailed(f"{model.path}: has {len(model.inputs)} inputs; samples can feed only one")
    try:
        samples = np.load(path, allow_pickle=False)
    except Exception as cause:
        raise CheckFailed(f"{path}: not a readable .npy file: {cause}") from cause
    if not isinstance(samples, np.ndarray) or samples.ndim < 1 or samples.dtype != np.float32:
        raise CheckFailed(f"{path}: expected one float32 array [count, *input shape]")
    if len(samples) == 0:
        raise CheckFailed(f"{path}: holds no samples")
    declared = model.session.get_inputs()[0].shape
    found = list(samples.shape[1:])
    # A symbolic dimension is a name or None and takes any size.
    fits = len(found) == len(declared) and all(not isinstance(d, int) or d == n for d, n in zip(declared, found))
    if not fits:
        raise CheckFailed(f"{path}: each sample has shape {found}, {model.path.name} takes {declared}")
    return samples


def check_shards(model: Runnable, samples: np.ndarray, shards: list[Runnable], tolerance: float) -> dict:
    """Runs the shards one after another on every sample and compares their outputs with the whole model's."""
    seen: dict[str, Path] = {}
    for shard in shards:
        for name in shard.outputs:
            if name in seen or name in model.inputs:
                giver = seen.get(name, "the model's input")
                raise CheckFailed(f"{shard.path}: its output {name} is also given by {giver}")
            seen[name] = shard.path
    absent = [name for name in model.outputs if name not in seen]
    if absent:
        raise CheckFailed(f"no shard gives the model's output {', '.join(absent)}")

    comparison = Comparison()
    for index, sample in enumerate(samples):
        available = {model.inputs[0]: sample}
        whole = model.run(available)
        for shard in shards:
            available |= shard.run(available)
        for name in model.outputs:
            comparison.add(whole[name], available[name], f"sample {index}, output {name}")
    report = comparison.report(tolerance)
    if not report["ok"]:
        report["error"] = f"the shards differ from the whole model by {comparison.max_abs_error:.3e}, allowed {tolerance:.3e}"
    return report


def read_answer(path: Path, samples: int) -> tuple[np.ndarray, int]:
    """The answer's flat outputs and the index of the sample that it is for."""
    try:
        answer = json.loads(path.read_text())
    except (OSError, ValueError) as cause:
        raise CheckFailed(f"{path}: not readable JSON: {cause}") from cause
    outputs = answer.get("outputs") if isinstance(answer, dict) else None
    index = answer.get("input_index") if isinstance(answer, dict) else None
    if not isinstance(outputs, list) or not all(type(value) in (int, float) for value in outputs):
        raise CheckFailed(f"{path}: `outputs` must be a flat list of numbers")
    if type(index) is not int or not 0 <= index < samples:
        raise CheckFailed(f"{path}: `input_index` must be a sample's index, 0 to {samples - 1}, found {index}")
    return np.array(outputs, np.float64), index


def compare_answer(model: Runnable, samples: np.ndarray, path: Path, tolerance: float) -> dict:
    """Compares an answer computed elsewhere with the whole model's outputs, in order and flattened."""
    outputs, index = read_answer(path, len(samples))
    whole = model.run({model.inputs[0]: samples[index]})
    expected = np.concatenate([whole[name].reshape(-1) for name in model.outputs])
    comparison = Comparison()
    comparison.add(expected, outputs, f"{path}, sample {index}")
    report = comparison.report(tolerance)
    if not report["ok"]:
        report["error"] = (
            f"{path} differs from the whole model on sample {index} by {comparison.max_abs_error:.3e}, allowed {tolerance:.3e}"
        )
    return report | {"input_index": index}


def tolerance_value(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Checks shards or an answer against the whole model in onnxruntime.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("samples", type=Path, metavar="SAMPLES.npy", help="float32 [count, *input shape]")
    parser.add_argument("shards", type=Path, nargs="*", metavar="SHARD.onnx", help="in the order in which they run")
    parser.add_argument("--tolerance", type=tolerance_value, default=1e-5, help="largest absolute difference (default 1e-5)")
    parser.add_argument("--compare", type=Path, metavar="ANSWER.json", help="an answer to compare with the whole model's")
    arguments = parser.parse_args()
    if not arguments.shards and arguments.compare is None:
        parser.error("give shards, --compare, or both")
    return arguments


def examine(arguments: argparse.Namespace) -> dict:
    """Every check that the arguments ask for, as the object to print."""
    model = Runnable(arguments.model)
    samples = load_samples(arguments.samples, model)
    report: dict = {"ok": True}
    if arguments.shards:
        shards = [Runnable(path) for path in arguments.shards]
        report = check_shards(model, samples, shards, arguments.tolerance)
        report |= {"shards": len(shards), "samples": len(samples)}
    if arguments.compare is not None:
        compared = compare_answer(model, samples, arguments.compare, arguments.tolerance)
        if not arguments.shards:
            return compared
        report["compare"] = compared
        if not compared["ok"]:
            report["ok"] = False
            report.setdefault("error", compared["error"])
    return report


def main() -> int:
    arguments = parse_arguments()
    try:
        report = examine(arguments)
    except CheckFailed as failure:
        report = {"ok": False, "max_abs_error": None, "shards": len(arguments.shards), "error": str(failure)}
    print(json.dumps(report))
    if not report["ok"]:
        print(f"error: {report['error']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
