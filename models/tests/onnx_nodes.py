"""Writes the official ONNX node tests as models that can be quantised.

    onnx_nodes.py FOLDER OPERATOR ...

For each test of the operators (`onnx.backend.test.case.node`) a model and its tensors go to FOLDER, with an index
`cases.json`: a list of {"name", "operator", "model", "inputs", "outputs"} with file names, or {"name", "operator",
"skipped"} with the reason. Inputs that an integer graph needs as constants become initializers; where both inputs may
be computed, or either, there is a case for each way.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

# Later operator sets add types to these operators and change nothing else.
HIGHEST_OPSET = 21
ADDITIVE = {"Add", "Sub", "Sum", "Mean", "Max", "Min", "Concat"}
EITHER = {"Mul", "MatMul", "Gemm"}
# The operators whose first input is constant, and which are the computed ones.
CONSTANT_FIRST = {"Where": [1, 2]}
# Tests of these ask for outputs that inference has no use for.
ONE_OUTPUT = {"LayerNormalization"}


def ways(operator, arrays):
    """Which inputs are computed, as (suffix, indices)."""
    count = len(arrays)
    if operator in ADDITIVE and count > 1:
        constant = [("", range(count)), (" (second constant)", [i for i in range(count) if i != 1])]
        return constant if count == 2 else constant[:1]
    if operator in EITHER and count >= 2:
        return [(" (second constant)", [0]), (" (first constant)", [1]), (" (both computed)", [0, 1])]
    if operator == "Div":
        return [(" (second constant)", [0]), (" (both computed)", [0, 1])]
    if operator in CONSTANT_FIRST:
        return [("", CONSTANT_FIRST[operator])]
    return [("", [0])]


def skip_reason(case):
    inputs, outputs = case.data_sets[0]
    if not inputs:
        return "no inputs"
    computed = CONSTANT_FIRST.get(case.model.graph.node[0].op_type, [0])
    arrays = [*[inputs[i] for i in computed], *outputs]
    if any(not isinstance(array, np.ndarray) and not np.isscalar(array) for array in arrays):
        return "sequences or optional values"
    kinds = {np.asarray(array).dtype.name for array in arrays}
    if kinds != {"float32"}:
        return f"not of float32 ({', '.join(sorted(kinds))})"
    if any(np.asarray(array).size == 0 for array in arrays):
        return "an empty tensor"
    if not all(np.isfinite(np.asarray(array)).all() for array in arrays):
        return "infinite values or NaN"
    return None


def written(case, folder, number, suffix, computed):
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for opset in model.opset_import:
        opset.version = min(opset.version, HIGHEST_OPSET)
    model.ir_version = min(model.ir_version, 10)
    inputs, outputs = case.data_sets[0]
    graph = model.graph
    if graph.node[0].op_type in ONE_OUTPUT:
        outputs = outputs[:1]
        del graph.output[1:], graph.node[0].output[1:]
    declared = list(graph.input)
    del graph.input[:]
    files = {"inputs": [], "outputs": []}

    def save(kind, array):
        name = f"{number}-{kind}-{len(files[kind])}.npy"
        np.save(folder / name, np.ascontiguousarray(array, dtype=np.float32).reshape(np.shape(array)))
        files[kind].append(name)

    for index, (info, array) in enumerate(zip(declared, inputs)):
        if index in computed:
            graph.input.append(info)
            save("inputs", array)
        else:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), info.name))
    for array in outputs:
        save("outputs", array)
    path = f"{number}.onnx"
    (folder / path).write_bytes(model.SerializeToString())
    return {"name": case.name + suffix, "operator": graph.node[0].op_type, "model": path, **files}


def main():
    folder, operators = pathlib.Path(sys.argv[1]), sys.argv[2:]
    cases = []
    for case in collect_testcases(None):
        # Some tests exist twice: as the operator, and expanded to the operators that define it.
        if case.model is None or len(case.model.graph.node) != 1 or "_expanded" in case.name:
            continue
        operator = case.model.graph.node[0].op_type
        if operator not in operators:
            continue
        reason = skip_reason(case)
        if reason:
            cases.append({"name": case.name, "operator": operator, "skipped": reason})
            continue
        for suffix, computed in ways(operator, case.data_sets[0][0]):
            cases.append(written(case, folder, len(cases), suffix, list(computed)))
    (folder / "cases.json").write_text(json.dumps(cases))


main()
