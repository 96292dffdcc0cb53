"""Who runs next on the device, and the one thread that runs it. Knows neither MindSpore nor gRPC."""
