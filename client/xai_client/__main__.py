"""Runs the command line: ``python -m xai_client``."""

import sys

from xai_client.command.main import main

sys.exit(main())
