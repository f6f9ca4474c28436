"""Makes the three tiny shards that the tests chain: x -> (h, a) -> r -> y. Needs onnx and numpy."""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent
RNG = np.random.default_rng(7)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.uniform(-0.5, 0.5, shape).astype(np.float32), name)


def save(name, nodes, inputs, outputs, weights):
    def info(tensors):
        return [helper.make_tensor_value_info(t, TensorProto.FLOAT, shape) for t, shape in tensors]

    graph = helper.make_graph(nodes, name, info(inputs), info(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, HERE / f"{name}.onnx")


def gemm(inputs, output):
    return helper.make_node("Gemm", inputs, [output], alpha=1.0, beta=1.0, transA=0, transB=1)


save(
    "first",
    [gemm(["x", "w0", "b0"], "h"), helper.make_node("Relu", ["h"], ["a"])],
    [("x", [1, 4])],
    [("h", [1, 4]), ("a", [1, 4])],
    [weight("w0", 4, 4), weight("b0", 4)],
)
save(
    "middle",
    [helper.make_node("Add", ["h", "a"], ["s"]), gemm(["s", "w1", "b1"], "r")],
    [("h", [1, 4]), ("a", [1, 4])],
    [("r", [1, 3])],
    [weight("w1", 3, 4), weight("b1", 3)],
)
save("last", [helper.make_node("Sigmoid", ["r"], ["y"])], [("r", [1, 3])], [("y", [1, 3])], [])

# The answer to the tests' input, for comparison.
by_name = {i.name: numpy_helper.to_array(i) for n in ("first", "middle") for i in onnx.load(HERE / f"{n}.onnx").graph.initializer}
h = np.array([0.5, -1.0, 0.25, 0.875]) @ by_name["w0"].T + by_name["b0"]
r = (h + np.maximum(h, 0)) @ by_name["w1"].T + by_name["b1"]
print("y =", 1 / (1 + np.exp(-r)))
