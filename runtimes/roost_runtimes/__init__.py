"""What serves one version of a model: protocol codecs, ONNX sessions, batching, the doors, the zygote."""
