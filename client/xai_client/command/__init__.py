"""The command line of the SDK."""
