"""The Open Inference Protocol, version 2, whatever it travels by: from tensors to the core's requests and back.

The adapters, `rpc/` and `http/`, make an `InferRequest` of what they receive, and send the `InferResponse` that
`service.OpenInference` gives them. docs/protocols.md says what the server takes and gives by this protocol.
"""
