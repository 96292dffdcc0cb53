"""Runs the command line: ``python -m xai_client``."""

import sys

from xai_client.cli import main

sys.exit(main())
