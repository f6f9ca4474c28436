"""Builds the zoo's ONNX graphs: plain operators, static shapes, explicit attributes, readable names."""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Weights = dict[str, np.ndarray]


def model_from(name: str, nodes: list, weights: Weights, input_shape: list[int], output_shape: list[int]) -> onnx.ModelProto:
    """Wraps nodes into a checked model with input `input`, output `output` and every inner tensor's shape recorded."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(value, np.float32), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    model.producer_name = "shardproof-zoo"
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


class Sequence:
    """A chain of nodes, one per layer, named `fc1`, `relu1`, ...; node `x` writes tensor `x_out`, the last one `output`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.counts: dict[str, int] = {}
        self.tensor = "input"

    def add(self, op: str, stem: str, numbered: bool = True, parameters: bool = False, **attributes) -> None:
        """Appends one node; `parameters` gives it the initializers `<node>.weight` and `<node>.bias`."""
        self.counts[stem] = self.counts.get(stem, 0) + 1
        name = f"{stem}{self.counts[stem]}" if numbered else stem
        inputs = [self.tensor] + ([f"{name}.weight", f"{name}.bias"] if parameters else [])
        self.tensor = f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [self.tensor], name=name, **attributes))

    def flatten(self) -> None:
        self.add("Flatten", "flatten", numbered=False, axis=1)

    def linear(self) -> None:
        self.add("Gemm", "fc", parameters=True, alpha=1.0, beta=1.0, transA=0, transB=1)

    def relu(self) -> None:
        self.add("Relu", "relu")

    def conv5x5(self) -> None:
        self.add("Conv", "conv", parameters=True, kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2],
                 dilations=[1, 1], group=1, auto_pad="NOTSET")

    def maxpool2x2(self) -> None:
        self.add("MaxPool", "pool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], dilations=[1, 1],
                 ceil_mode=0, storage_order=0, auto_pad="NOTSET")

    def finish(self) -> list[onnx.NodeProto]:
        """The nodes, the last one's tensor renamed to `output`."""
        self.nodes[-1].output[0] = "output"
        return self.nodes


def mlp(weights: Weights) -> onnx.ModelProto:
    """25-10-10-10-10-10-1 with ReLU between; input [1, 1, 5, 5], output [1, 1]."""
    chain = Sequence()
    chain.flatten()
    for _ in range(5):
        chain.linear()
        chain.relu()
    chain.linear()
    return model_from("mlp", chain.finish(), weights, [1, 1, 5, 5], [1, 1])


def cnn(weights: Weights) -> onnx.ModelProto:
    """Two blocks of 5x5 convolution, ReLU, max-pool, then 490-50-10-1; input [1, 1, 28, 28], output [1, 1]."""
    chain = Sequence()
    for _ in range(2):
        chain.conv5x5()
        chain.relu()
        chain.maxpool2x2()
    chain.flatten()
    for _ in range(2):
        chain.linear()
        chain.relu()
    chain.linear()
    return model_from("cnn", chain.finish(), weights, [1, 1, 28, 28], [1, 1])


def mlp2(weights: Weights) -> onnx.ModelProto:
    """784-500-250-100-50-10-1 with two sigmoids, dropout (an Identity) and two ReLUs; input [1, 1, 28, 28], output [1, 1]."""
    chain = Sequence()
    chain.flatten()
    chain.linear()
    chain.add("Sigmoid", "sigmoid")
    chain.linear()
    chain.add("Sigmoid", "sigmoid")
    chain.add("Identity", "dropout", numbered=False)
    chain.linear()
    chain.relu()
    chain.linear()
    chain.relu()
    chain.linear()
    chain.linear()
    return model_from("mlp2", chain.finish(), weights, [1, 1, 28, 28], [1, 1])


def testing(weights: Weights) -> onnx.ModelProto:
    """Twelve linear layers 10-20-...-20-1 and nothing between; input [1, 10], output [1, 1]."""
    chain = Sequence()
    for _ in range(12):
        chain.linear()
    return model_from("testing", chain.finish(), weights, [1, 10], [1, 1])


BATCH, SEQUENCE, EMBEDDING, HEADS, BLOCKS = 10, 32, 128, 4, 12


class Block:
    """Nodes of one attention block under `/layers.I/`, named and numbered as PyTorch's exporter does."""

    def __init__(self, index: int) -> None:
        self.scope = f"/layers.{index}"
        self.weights = f"layers.{index}"
        self.nodes: list[onnx.NodeProto] = []
        self.counts: dict[str, int] = {}

    def add(self, module: str, op: str, inputs: list[str], outputs: int = 1, **attributes) -> list[str]:
        """Appends one node in the block's sub-module; returns the names of the tensors that it writes."""
        base = f"{self.scope}/{module}/{op}" if module else f"{self.scope}/{op}"
        seen = self.counts.get(base, 0)
        self.counts[base] = seen + 1
        name = f"{base}_{seen}" if seen else base
        results = [f"{name}_output_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, results, name=name, **attributes))
        return results

    def constant(self, module: str, value: np.ndarray) -> str:
        """A Constant node rather than an initializer, so that the initializers are exactly the model's parameters."""
        return self.add(module, "Constant", [], value=numpy_helper.from_array(value))[0]

    def linear(self, module: str, tensor: str, weight: str, bias: str) -> str:
        (product,) = self.add(module, "MatMul", [tensor, f"{self.weights}.{weight}"])
        return self.add(module, "Add", [product, f"{self.weights}.{bias}"])[0]

    def reshape(self, module: str, tensor: str, shape: list[int]) -> str:
        return self.add(module, "Reshape", [tensor, self.constant(module, np.array(shape, np.int64))], allowzero=0)[0]

    def self_attention(self, tensor: str) -> str:
        """softmax(Q K^T / sqrt(head width)) V per head, then the output projection; [batch, sequence, embedding]."""
        module, width = "self_attn", EMBEDDING // HEADS
        packed = self.linear(module, tensor, "self_attn.in_proj_weight", "self_attn.in_proj_bias")
        thirds = self.add(module, "Split", [packed], outputs=3, axis=2)
        by_head = []
        # Keys go to [batch, head, width, sequence], the others to [batch, head, sequence, width].
        for third, order in zip(thirds, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])):
            split = self.reshape(module, third, [BATCH, SEQUENCE, HEADS, width])
            by_head += self.add(module, "Transpose", [split], perm=order)
        query, key, value = by_head
        scale = self.constant(module, np.array(1.0 / math.sqrt(width), np.float32))
        (scaled,) = self.add(module, "Mul", [query, scale])
        (scores,) = self.add(module, "MatMul", [scaled, key])
        (shares,) = self.add(module, "Softmax", [scores], axis=-1)
        (mixed,) = self.add(module, "MatMul", [shares, value])
        (together,) = self.add(module, "Transpose", [mixed], perm=[0, 2, 1, 3])
        flat = self.reshape(module, together, [BATCH, SEQUENCE, EMBEDDING])
        return self.linear(f"{module}/out_proj", flat, "self_attn.out_proj.weight", "self_attn.out_proj.bias")

    def build(self, tensor: str) -> str:
        """x = LayerNorm(x + attention(x)); x + feed_forward(x)."""
        (summed,) = self.add("", "Add", [tensor, self.self_attention(tensor)])
        norm = [f"{self.weights}.norm1.weight", f"{self.weights}.norm1.bias"]
        (normed,) = self.add("norm1", "LayerNormalization", [summed] + norm, axis=-1, epsilon=1e-5)
        hidden = self.linear("linear1", normed, "linear1.weight", "linear1.bias")
        (active,) = self.add("activation", "Relu", [hidden])
        fed_forward = self.linear("linear2", active, "linear2.weight", "linear2.bias")
        return self.add("", "Add", [normed, fed_forward])[0]


def attention(weights: Weights) -> onnx.ModelProto:
    """Twelve blocks of self-attention, residual, layer norm, feed-forward, residual; [10, 32, 128] in and out."""
    nodes, tensor = [], "input"
    for index in range(BLOCKS):
        block = Block(index)
        tensor = block.build(tensor)
        nodes += block.nodes
    nodes[-1].output[0] = "output"
    shape = [BATCH, SEQUENCE, EMBEDDING]
    return model_from("attention", nodes, weights, shape, shape)


def parameter_count(model: onnx.ModelProto) -> int:
    """Elements of all initializers."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
