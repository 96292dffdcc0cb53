"""Viewers of the console's page Live, as the server sees them: `python -m bench.console_viewers ADDRESS COUNT`.

Each lists the newest samples and watches them through the console's own source; one monitor asks for all how the server
is. The process gets CPU time only where nobody else wants any, as if viewers and console were on other machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from xai_client import SampleFilter
from xai_console.monitor import Monitor
from xai_console.query import PAGE_SIZE
from xai_console.settings import Settings
from xai_console.source.live import LiveSource

MAPS = "gradcam"


async def _view(source: LiveSource) -> None:
    await source.list_samples(
        SampleFilter(), order="newest_first", score_of=None, page_size=PAGE_SIZE, page_token="", map_of=MAPS
    )
    async with contextlib.aclosing(source.watch_samples(SampleFilter(), map_of=MAPS)) as events:
        async for _ in events:
            pass


async def _main(address: str, count: int) -> None:
    source = LiveSource(Settings(address))
    monitor = Monitor(source)
    monitor.watch(lambda: None)
    viewers = [asyncio.create_task(_view(source)) for _ in range(count)]
    watching = asyncio.create_task(monitor.run())
    await asyncio.sleep(1.0)
    print("watching", flush=True)
    await asyncio.gather(watching, *viewers)


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
