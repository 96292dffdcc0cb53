"""The command line `xai-console`."""
