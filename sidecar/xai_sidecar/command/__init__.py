"""The command lines, and the life of the server."""
