"""The HTTP adapter: probes, /metrics, and the routes of protocols."""
