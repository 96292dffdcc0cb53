"""The core of a call: admit, prepare, predict, explain, sample. Knows neither gRPC nor HTTP."""
