"""The gRPC adapter: requests and answers of the contract, status codes, interceptors."""
