"""What leaves the store: other engines and formats, and heads as ONNX files."""
