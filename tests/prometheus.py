"""A real Prometheus on a free loopback port, with a database of its own, for as long as a test needs it."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

JOB = "xai-sidecar"


def binary(name):
    """The path of `prometheus` or `promtool`."""
    path = shutil.which(name)
    assert path, f"{name} is missing; on Debian: apt install prometheus"
    return path


class QueryError(Exception):
    """Prometheus does not take a query; says why."""


class Prometheus:
    """Its HTTP API.

    Args:
        address: host:port.
    """

    def __init__(self, address):
        self.url = f"http://{address}"

    def query(self, expression, time=None):
        """Evaluates an expression.

        Args:
            expression: In PromQL.
            time: As Unix time; now by default.

        Returns:
            For a vector, a list of (labels, value), with NaN and infinities as floats; for a scalar, a float.

        Raises:
            QueryError: It is not valid, or cannot be evaluated.
        """
        result = self._api("query", query=expression, **({} if time is None else {"time": f"{time:.3f}"}))
        if result["resultType"] == "vector":
            return [(series["metric"], float(series["value"][1])) for series in result["result"]]
        assert result["resultType"] == "scalar", f"{expression} is a {result['resultType']}"
        return float(result["result"][1])

    def value(self, expression, time=None):
        """The value of an expression that has exactly one series."""
        result = self.query(expression, time)
        assert len(result) == 1, f"{expression} has {len(result)} series: {result}"
        return result[0][1]

    def targets(self):
        """The targets that it scrapes, as its API has them: scrapeUrl, health, lastError, and labels among others."""
        return self._api("targets", state="active")["activeTargets"]

    def rules(self):
        """All rules, alerting and recording, as its API has them: name, query, health, and lastError among others."""
        return [rule for group in self._api("rules")["groups"] for rule in group["rules"]]

    def alerts(self):
        """The alerts that are pending or firing, as its API has them: labels, annotations, and state among others."""
        return self._api("alerts")["alerts"]

    def wait(self, condition, seconds=120):
        """Calls `condition` until it is true, and returns what it returns; an error, or nothing yet, is tried again."""
        end = time.monotonic() + seconds
        while True:
            problem = None
            try:
                found = condition()
            except (AssertionError, IndexError, KeyError) as error:
                found, problem = None, error
            if found:
                return found
            assert time.monotonic() < end, f"not within {seconds} s; last: {problem!r}; targets: {self.targets()}"
            time.sleep(0.1)

    def wait_for_scrapes(self, count=1, seconds=30):
        """Waits until each target has been scraped `count` times, all of them with success."""

        def scraped():
            every = self.targets()
            done = [value for _, value in self.query("sum_over_time(up[1h])")]
            return len(done) == len(every) > 0 and min(done) >= count

        self.wait(scraped, seconds)

    def is_ready(self):
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _api(self, path, **arguments):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(f"{arguments}: {json.load(error).get('error')}") from None


@contextlib.contextmanager
def prometheus(folder, targets, rules=(), scrape_interval="1s", metrics_path="/metrics"):
    """Runs Prometheus.

    Args:
        folder: Where its config, its database and its log go.
        targets: The host:port of each that it scrapes, as the job `JOB`.
        rules: Files of rules; they are evaluated as often as targets are scraped.
        scrape_interval: How often that is.
        metrics_path: Where targets have their metrics.

    Yields:
        A `Prometheus` that is ready; it need not have scraped yet.
    """
    program = binary("prometheus")
    config = {
        "global": {
            "scrape_interval": scrape_interval,
            "scrape_timeout": scrape_interval,
            "evaluation_interval": scrape_interval,
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {"job_name": JOB, "metrics_path": metrics_path, "static_configs": [{"targets": list(targets)}]}
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(yaml.safe_dump(config))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Prometheus(address)
            end = time.monotonic() + 30
            while not server.is_ready():
                assert process.poll() is None and time.monotonic() < end, f"it does not start:\n{log.read_text()}"
                time.sleep(0.05)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
