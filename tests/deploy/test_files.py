"""Files that no test runs: they can be parsed, agree on paths, ports, names and users, and fit their schemas."""

import json
import re
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from xai_sidecar.config import load_config, parse_config
from xai_sidecar.config.reading import tomllib

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONFIG = "/etc/xai-sidecar/sidecar.toml"
APP = {"app.kubernetes.io/name": "xai-sidecar"}


SAMPLE = "/usr/share/xai-sidecar/sample"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The container's config, with files in the places of those that only the image has."""
    files = {key: tmp_path_factory.mktemp("image") / key for key in ("onnx", "labels")}
    for file in files.values():
        file.write_text("")
    return load_config(DEPLOY / "config" / "sidecar.toml", [f"model.{key}={file}" for key, file in files.items()])


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def dockerfile():
    """The instructions, in order, as (name, rest)."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def documents(folder):
    """The Kubernetes objects of all files below a folder, in order."""
    files = sorted(folder.rglob("*.yaml"))
    every = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [document for document in every if document["kind"] != "Kustomization"]


@pytest.fixture(scope="module")
def manifests():
    """Those of the sidecar itself, and how it is watched, by kind and name."""
    every = documents(DEPLOY / "kubernetes" / "prometheus-operator")
    for name in resources(DEPLOY / "kubernetes"):
        every += yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in every}


def resources(folder):
    return yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]


def only(dockerfile, name):
    (rest,) = [rest for instruction, rest in dockerfile if instruction == name]
    return rest


def ports(config):
    return {int(address.rpartition(":")[2]) for address in (config.server.grpc, config.server.http)}


def kept(config):
    """The folders that the config wants to write to."""
    store = config.evaluator.store.removeprefix("sqlite:///")
    assert store.startswith("/"), "sqlite:/// and an absolute path"
    return {str(Path(store).parent), str(config.model.compile_cache.parent)}


def mounts(service):
    """The folders of a service by where they are mounted."""
    return {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}


def test_the_config_is_right_and_reachable_from_outside(config):
    assert ports(config) == {50051, 9090}
    assert config.server.grpc.startswith("0.0.0.0:") and config.server.http.startswith("0.0.0.0:")
    assert config.evaluator.enabled


def test_the_image(dockerfile, config):
    assert [rest for name, rest in dockerfile if name == "FROM"] == ["${BASE} AS build", "${BASE}"]
    arguments = dict(rest.split("=", 1) for name, rest in dockerfile if name == "ARG")
    assert arguments["BASE"] == "python:3.11-slim"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(arguments["EXTRAS"].split(",")) <= set(extras)
    assert json.loads(only(dockerfile, "ENTRYPOINT")) == ["xai-sidecar"]
    assert json.loads(only(dockerfile, "CMD")) == ["serve", "--config", CONFIG]
    assert {int(port) for port in only(dockerfile, "EXPOSE").split()} == ports(config)
    assert set(json.loads(only(dockerfile, "VOLUME"))) == kept(config)
    assert "127.0.0.1:9090/readyz" in only(dockerfile, "HEALTHCHECK")
    runs = " ".join(rest for name, rest in dockerfile if name == "RUN")
    assert ".[${EXTRAS}]" in runs and f"xai-sidecar sample --out {SAMPLE}" in runs
    for folder in kept(config):
        assert re.search(rf"chown sidecar:sidecar[^&]* {folder}\b", runs), folder
    environment = dict(one.split("=") for one in shlex.split(only(dockerfile, "ENV")))
    defaults = {f"{environment[name]}/xai-sidecar" for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME")}
    assert defaults == kept(config), "what the config leaves out goes to the volumes, too"


def test_the_image_does_not_run_as_root(dockerfile):
    user, group = only(dockerfile, "USER").split(":")
    assert int(user) and int(group)
    assert any(f"--uid {user}" in rest for name, rest in dockerfile if name == "RUN")
    assert [name for name, _ in dockerfile][-3:] == ["HEALTHCHECK", "ENTRYPOINT", "CMD"]


def test_the_image_gets_all_that_the_package_is_built_from(dockerfile):
    lines = [rest for name, rest in dockerfile if name == "COPY" and not rest.startswith("--from=")]
    copied = {source for rest in lines for source in rest.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "client", "proto", "sidecar"} <= copied
    kept_by_ignore = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in kept_by_ignore if line.startswith("!")}
    assert all({source, *map(str, Path(source).parents)} & kept for source in copied)


def test_what_is_served_out_of_the_box_is_in_the_image():
    model = tomllib.loads((DEPLOY / "config" / "sidecar.toml").read_text())["model"]
    assert {str(Path(model[key]).parent) for key in ("onnx", "labels")} == {SAMPLE}


def test_all_folders_of_the_compose_file_exist(compose):
    for name, service in compose["services"].items():
        for source in mounts(service).values():
            if source.startswith("."):
                assert (DEPLOY / source).is_dir(), f"{name}: {source}"
            else:
                assert source in compose["volumes"], f"{name}: {source}"
    build = compose["services"]["xai-sidecar"]["build"]
    context = DEPLOY / build["context"]
    assert context.resolve() == ROOT
    assert (context / build["dockerfile"]).is_file()


def test_the_sidecar_of_the_compose_file(compose, config):
    service = compose["services"]["xai-sidecar"]
    folders = mounts(service)
    source = DEPLOY / folders[str(Path(CONFIG).parent)]
    assert (source / Path(CONFIG).name).is_file()
    for folder in kept(config):
        assert folders[folder] in compose["volumes"], "it outlives the container"
    assert "127.0.0.1:9090/readyz" in service["healthcheck"]["test"][-1]
    compile(service["healthcheck"]["test"][-1], "healthcheck", "exec")
    assert int(service["stop_grace_period"].removesuffix("s")) > config.server.drain_seconds


def test_nothing_listens_beyond_the_loopback_of_the_host(compose):
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == 3


def test_prometheus_scrapes_the_sidecar(compose, config):
    service = compose["services"]["prometheus"]
    options = dict(option.removeprefix("--").split("=") for option in service["command"])
    folders = mounts(service)
    inside = Path(options["config.file"])
    file = DEPLOY / folders[str(inside.parent)] / inside.name
    settings = yaml.safe_load(file.read_text())
    assert all((file.parent / rules).is_file() for rules in settings["rule_files"])
    (scrape,) = settings["scrape_configs"]
    assert scrape["job_name"].startswith("xai-sidecar")
    (target,) = scrape["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in compose["services"]
    assert port == config.server.http.rpartition(":")[2]
    assert folders[options["storage.tsdb.path"]] in compose["volumes"]
    assert int(options["storage.tsdb.retention.time"].removesuffix("d")) >= 8, "alerts compare with last week"


def test_grafana_finds_prometheus_and_the_dashboard(compose):
    service = compose["services"]["grafana"]
    folders = mounts(service)
    provisioning = DEPLOY / folders["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    published = compose["services"][host]["ports"][0]
    assert port == published.split(":")[2]
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == settings["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "xai-sidecar.yml").read_text())["providers"]
    dashboards = DEPLOY / folders[provider["options"]["path"]]
    assert [file.name for file in dashboards.glob("*.json")] == ["xai-sidecar.json"]


def test_the_manifests_hold_together(manifests):
    assert {kind for kind, _ in manifests} == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Service",
        "ServiceMonitor",
    }
    deployment = manifests["Deployment", "xai-sidecar"]["spec"]
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"] == APP
    service = manifests["Service", "xai-sidecar"]
    assert service["spec"]["selector"] == service["metadata"]["labels"] == APP
    assert manifests["ServiceMonitor", "xai-sidecar"]["spec"]["selector"]["matchLabels"] == APP
    for volume in deployment["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in manifests
        elif volume != {"name": "tmp", "emptyDir": {}}:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in manifests


def test_the_pod(manifests, config, dockerfile):
    spec = manifests["Deployment", "xai-sidecar"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    folders = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert set(folders) == {CONFIG, "/tmp", *kept(config)}
    assert container["securityContext"]["readOnlyRootFilesystem"], "all that it writes to is mounted"
    assert folders[CONFIG]["subPath"] in manifests["ConfigMap", "xai-sidecar"]["data"]
    assert {mount["name"] for mount in folders.values()} == {volume["name"] for volume in spec["volumes"]}
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert set(numbers.values()) == ports(config)
    assert numbers["http"] == int(config.server.http.rpartition(":")[2])
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/readyz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 600, "as long as compose and the image allow"
    assert spec["terminationGracePeriodSeconds"] > config.server.drain_seconds
    user, group = map(int, only(dockerfile, "USER").split(":"))
    who = {key: value for key, value in spec["securityContext"].items() if key != "seccompProfile"}
    assert who == {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": group, "fsGroup": group}


def test_a_store_is_never_shared(manifests):
    deployment = manifests["Deployment", "xai-sidecar"]["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}


def test_the_service_and_its_monitor(manifests):
    (container,) = manifests["Deployment", "xai-sidecar"]["spec"]["template"]["spec"]["containers"]
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    service = {port["name"]: port for port in manifests["Service", "xai-sidecar"]["spec"]["ports"]}
    assert {name: port["port"] for name, port in service.items()} == named
    assert all(port["targetPort"] == name for name, port in service.items())
    monitor = manifests["ServiceMonitor", "xai-sidecar"]["spec"]
    (endpoint,) = monitor["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert manifests["Service", "xai-sidecar"]["metadata"]["labels"][monitor["jobLabel"]] == "xai-sidecar"


def test_the_config_map_has_the_config(manifests):
    inside = manifests["ConfigMap", "xai-sidecar"]["data"]["sidecar.toml"]
    assert inside == (DEPLOY / "config" / "sidecar.toml").read_text()


def test_every_manifest_is_as_kubernetes_has_it():
    ours = documents(DEPLOY / "kubernetes")
    known = [one for one in ours if one["apiVersion"].partition("/")[0] in ("v1", "apps", "networking.k8s.io")]
    assert {one["kind"] for one in ours} - {one["kind"] for one in known} == {
        "InferenceService",
        "ServiceMonitor",
        "ServingRuntime",
    }
    for one in known:
        kubernetes_validate.validate(one, "1.31", strict=True)


def test_a_manifest_with_a_wrong_field_is_found():
    wrong = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    wrong["spec"]["template"]["spec"]["containers"][0]["startUpProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_every_manifest_is_in_a_kustomization():
    for folder in [DEPLOY / "kubernetes", *(DEPLOY / "kubernetes").glob("*/")]:
        files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(resources(folder)) == files, folder


def test_the_network_policy_is_of_the_pod_and_its_ports(manifests):
    policy = manifests["NetworkPolicy", "xai-sidecar"]["spec"]
    assert policy["podSelector"]["matchLabels"] == APP
    (container,) = manifests["Deployment", "xai-sidecar"]["spec"]["template"]["spec"]["containers"]
    open_ports = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert sorted(open_ports) == sorted(port["name"] for port in container["ports"])
    assert all(rule["from"] for rule in policy["ingress"]), "nothing is open to all"
    assert policy["egress"] == []


def test_beside_another_server_nothing_waits_for_what_waits_for_it():
    folder = DEPLOY / "kubernetes" / "beside-a-server"
    (deployment,) = [one for one in documents(folder) if one["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always", "it stays beside the server"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/healthz", "ready it is only after the server, which waits"
    assert sidecar["readinessProbe"]["httpGet"]["path"] == "/readyz"
    volumes = {volume["name"] for volume in spec["volumes"]}
    containers = [sidecar, *spec["containers"]]
    assert {mount["name"] for one in containers for mount in one["volumeMounts"]} == volumes
    assert {"/tmp", "/var/lib/xai-sidecar", "/var/cache/xai-sidecar"} < {
        mount["mountPath"] for mount in sidecar["volumeMounts"]
    }


def test_beside_another_server_its_model_is_asked_where_it_is_served():
    folder = DEPLOY / "kubernetes" / "beside-a-server"
    by_kind = {one["kind"]: one for one in documents(folder)}
    config = tomllib.loads(by_kind["ConfigMap"]["data"]["sidecar.toml"])
    (server,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    (port,) = server["ports"]
    assert config["model"]["oip"].startswith(f"grpc://127.0.0.1:{port['containerPort']}/")
    parse_config(config)


def test_kserves_runtime_is_started_with_keys_that_there_are(tmp_path):
    (runtime,) = [one for one in documents(DEPLOY / "kubernetes") if one["kind"] == "ServingRuntime"]
    (container,) = runtime["spec"]["containers"]
    command, config, *overrides = container["args"]
    assert (command, config) == ("serve", "--config=/mnt/models/sidecar.toml")
    (tmp_path / "model.onnx").write_text("")
    given = [override.removeprefix("--set=") for override in overrides]
    served = parse_config({"model": {"onnx": "model.onnx"}}, given, tmp_path)
    assert served.model.name == "{{.Name}}", "which KServe puts in"
    ports = {port["containerPort"] for port in container["ports"]}
    assert ports == {int(served.server.http.rpartition(":")[2])}
    assert {container[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "liveness", "readiness")} == ports
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(served.model.compile_cache.parent) in mounted
