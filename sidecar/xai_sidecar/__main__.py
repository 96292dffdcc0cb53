"""`python -m xai_sidecar` is the command `xai-sidecar`."""

from xai_sidecar.command.main import main

if __name__ == "__main__":
    raise SystemExit(main())
