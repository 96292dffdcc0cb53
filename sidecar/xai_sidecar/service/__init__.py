"""The gRPC service: decode, submit, encode, and the life of the server around it."""
