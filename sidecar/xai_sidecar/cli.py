"""The command line under its former name: `python -m xai_sidecar.cli` stands in people's unit files."""

from xai_sidecar.command.main import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
