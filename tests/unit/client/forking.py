"""A program that forks, to be run by itself: gRPC must not have been used in the process before.

Usage: forking.py ADDRESS PARENT CHILD WAY. Prints what became of the children: "ok", or the name of an error.
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import time

from xai_client import AsyncClient, Client

SECONDS = 20
address, parent, child, way = sys.argv[1:]
client = Client(address, timeout=10)
asynchronous = AsyncClient(address, timeout=10)
streaming = threading.Event()


def ask():
    while True:
        client.predict(b"x")


def watch():
    for _ in client.stream(b"x"):
        streaming.set()


async def ask_asynchronously(own, *, close=True):
    answer = await own.model_info()
    if close:
        await own.close()
    return answer


def prepare():
    """Has the parent use gRPC before it forks, or while."""
    if parent in ("used", "busy", "streaming"):
        client.model_info()
    if parent == "busy":
        for _ in range(2):
            threading.Thread(target=ask, daemon=True).start()
        time.sleep(0.2)
    if parent == "streaming":
        threading.Thread(target=watch, daemon=True).start()
        streaming.wait(10)
    if parent == "async closed":
        asyncio.run(ask_asynchronously(AsyncClient(address)))
    if parent == "async open":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask_asynchronously(asynchronous, close=False))


def work(_=None):
    """What the child does; returns how it went."""
    signal.alarm(SECONDS)
    try:
        if child == "old":
            client.model_info()
        elif child == "new":
            with Client(address, timeout=10) as own:
                own.model_info()
        elif child == "old stream":
            list(client.stream(b"x"))
        elif child == "async old":
            asyncio.run(ask_asynchronously(asynchronous))
        else:
            asyncio.run(ask_asynchronously(AsyncClient(address, timeout=10)))
    except Exception as error:
        return type(error).__name__
    return "ok"


def by_fork():
    """The barest way; the child ends as any program, with all that is closed then."""
    reading, writing = os.pipe()
    number = os.fork()
    if not number:
        os.write(writing, work().encode())
        sys.exit(0)
    os.close(writing)
    said = os.read(reading, 100).decode()
    status = os.waitpid(number, 0)[1]
    return said if status == 0 else f"{said}, then status {status}"


def by_forks():
    return " ".join(sorted({by_fork() for _ in range(12)}))


def by_executor():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(work).result(SECONDS)


def by_pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        said = set(pool.map(work, range(4)))
    return " ".join(sorted(said))


if __name__ == "__main__":
    prepare()
    print({"fork": by_fork, "forks": by_forks, "executor": by_executor, "pool": by_pool}[way](), flush=True)
    if parent == "used":
        client.model_info()  # what the children did has not harmed it
    os._exit(0)
