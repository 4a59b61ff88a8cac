"""Names of a version's files."""

EXECUTABLE = "network.onnx"
