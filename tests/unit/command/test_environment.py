"""What a process of the server sets for itself."""

import subprocess
import sys

RUN = """
import gc, types
from xai_sidecar.command import main, server

class Ready:
    lost = None
    def __init__(self, *arguments, **named):
        pass
    async def run(self, report, on_ready):
        self.there = [object() for _ in range(10)]  # of containers, which alone can be garbage
        on_ready(self)
        return 0

class Cycle:
    ended = False
    def __init__(self):
        self.itself = self
    def __del__(self):
        Cycle.ended = True

def on_ready(server):
    looked_at = {id(each) for each in gc.get_objects()}
    print(id(server.there) in looked_at, id(gc) in looked_at)
    Cycle()
    gc.collect()
    print(Cycle.ended)

server.Sidecar = Ready
config = types.SimpleNamespace(
    server=types.SimpleNamespace(log_level="error", log_format="json"),
    model=types.SimpleNamespace(source="factory"),
)
main._run_server(config, on_ready)
"""


def test_once_a_server_is_ready_garbage_is_looked_for_in_what_comes_after_alone():
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["False False", "True"]
