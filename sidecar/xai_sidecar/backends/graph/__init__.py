"""A classifier as an ONNX graph, with the programs that are made of it: passes, and their derivatives."""
