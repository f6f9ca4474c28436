"""Makes tiny.onnx, the smallest network that is worth proving in three shards: 4-4-4-2, ReLU between; and floor.onnx, which
no integers compute. Needs onnx and numpy."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(7)
nodes, weights, dims, x = [], [], [4, 4, 4, 2], "input"
for i, (a, b) in enumerate(zip(dims, dims[1:]), start=1):
    last = i == len(dims) - 1
    w = rng.uniform(-0.5, 0.5, (b, a)).astype(np.float32)
    c = rng.uniform(-0.5, 0.5, b).astype(np.float32)
    weights += [numpy_helper.from_array(w, f"fc{i}.weight"), numpy_helper.from_array(c, f"fc{i}.bias")]
    y = "output" if last else f"fc{i}_out"
    nodes.append(helper.make_node("Gemm", [x, f"fc{i}.weight", f"fc{i}.bias"], [y], name=f"fc{i}", transB=1))
    if not last:
        nodes.append(helper.make_node("Relu", [y], [f"relu{i}_out"], name=f"relu{i}"))
        x = f"relu{i}_out"
tensor = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
graph = helper.make_graph(nodes, "tiny", [tensor("input", [1, 4])], [tensor("output", [1, 2])], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "tiny.onnx")

nodes = [helper.make_node("Relu", ["input"], ["kept"], name="relu"), helper.make_node("Floor", ["kept"], ["output"], name="floor")]
graph = helper.make_graph(nodes, "floor", [tensor("input", [1, 4])], [tensor("output", [1, 4])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "floor.onnx")
