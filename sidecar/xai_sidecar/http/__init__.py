"""The HTTP adapter: probes and /metrics."""
