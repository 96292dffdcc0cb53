"""Engines: what runs a serialised ONNX graph, the choice between them, and what is kept on disk for them."""
