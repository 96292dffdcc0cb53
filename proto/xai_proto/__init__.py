"""Generated stubs of the `xai.v1` contract; see proto/xai/v1/explanation.proto. Made by `make proto`, never by hand."""
