//! ONNX import, splitting into shards, the model zoo and the float executor.
