"""Runs the command line: ``python -m xai_console``."""

import sys

from xai_console.command.main import main

sys.exit(main())
