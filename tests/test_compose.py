"""Everything that docker-compose.yml names is looked up in the code; nothing of it is started."""

from __future__ import annotations

import re
from importlib.metadata import entry_points, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import compose_spec
import pytest
import yaml

from endcap.jobs import load_jobs
from endcap.runtime import open_runtime
from endcap.settings import Settings, load_settings
from endcap_reranker.app import create_app
from endcap_reranker.exposure import check_doors

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("reranker", "worker", "beat")
EXAMPLE = dict(
    line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")
)
SECRETS = {
    name: f"{name.lower().replace('_', '')}0123456789abcdef0123456789abcdef" for name in EXAMPLE if not EXAMPLE[name]
}
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def filled(text: str, given: dict[str, str]) -> str:
    """The text as docker compose would have it."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found[1], found[2], found[3]
        if given.get(name):
            return given[name]
        assert kind == ":-", f"{name} is needed"
        return rest or ""

    return _VARIABLE.sub(value, text).replace("$$", "$")


def environment(name: str, given: dict[str, str] | None = None) -> dict[str, str]:
    return {key: filled(str(text), given or SECRETS) for key, text in SERVICES[name].get("environment", {}).items()}


def dockerfile() -> str:
    return str(COMPOSE["x-build"]["dockerfile_inline"]).replace("$$", "$")


def settings_of(name: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, str] | None = None) -> Settings:
    for key, value in (image_environment() | environment(name, given)).items():
        if key.startswith("ENDCAP_"):
            monkeypatch.setenv(key, value)
    return load_settings()


def image_environment() -> dict[str, str]:
    found = re.search(r"^ENV ((?:.*\\\n)*.*)$", dockerfile(), re.MULTILINE)
    assert found
    return dict(pair.split("=", 1) for pair in found[1].replace("\\\n", " ").split())


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("ENDCAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_it_is_what_docker_compose_reads() -> None:
    plain = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    # The text as it is after interpolation and merging: sizes, ports and conditions are read, too.
    text = filled(yaml.safe_dump(plain), SECRETS)
    assert sorted(compose_spec.PyCompose.from_yaml(text).service_names()) == sorted(SERVICES)
    for wrong in ("services: {a: {image: b, healthcheck: {test: [1]}}}", "services: {a: {image: b, ports: [x:y]}}"):
        with pytest.raises(Exception, match=r"services|line"):
            compose_spec.PyCompose.from_yaml(wrong)


@pytest.mark.parametrize("name", OURS)
def test_its_settings_are_settings(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings_of(name, monkeypatch)
    assert "is no setting" not in caplog.text
    assert urlsplit(chosen.engine_url).hostname in SERVICES
    assert urlsplit(chosen.redis_url).hostname in SERVICES
    assert urlsplit(chosen.database_url).hostname in SERVICES
    assert chosen.embedded_worker is False


def test_secrets_come_from_the_environment_and_are_needed() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert used == set(EXAMPLE)
    assert needed == {
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "ELASTIC_PASSWORD",
        "ENDCAP_ADMIN_TOKEN",
        "ENDCAP_CONSOLE_SECRET",
    }
    for one in needed:
        others = {key: value for key, value in SECRETS.items() if key != one}
        with pytest.raises(AssertionError, match=one):
            filled((ROOT / "docker-compose.yml").read_text(), others)
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|API_KEY", key):
                assert re.fullmatch(r"\$\{\w+:[?-][^}]*\}", str(value)), (name, key)


def test_the_server_starts_with_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As far as that is possible without the other servers: nothing is open to the world, ports and paths are right."""
    chosen = settings_of("reranker", monkeypatch)
    own = chosen.model_copy(update={"data_dir": tmp_path, "database_url": "", "redis_url": "", "engine_url": ""})
    check_doors(own)
    published = dict(port.rsplit(":", 2)[-2:] for port in SERVICES["reranker"]["ports"])
    assert set(published.values()) == {str(own.port), str(own.admin_port)}
    assert f"127.0.0.1:{own.admin_port}:{own.admin_port}" in SERVICES["reranker"]["ports"]
    exposed = re.search(r"^EXPOSE (.*)$", dockerfile(), re.MULTILINE)
    assert exposed
    assert set(exposed[1].split()) == set(published.values())
    probe = re.search(r"urlopen\('(http[^']+)'", SERVICES["reranker"]["healthcheck"]["test"][3])
    assert probe
    assert urlsplit(probe[1]).port == own.port
    runtime = open_runtime(own, start=False)
    try:
        client = create_app(runtime).test_client()
        assert client.get(urlsplit(probe[1]).path, base_url=f"http://x:{own.port}").status_code == 200
        answer = client.get(
            "/admin/v1/jobs",
            base_url=f"http://x:{own.admin_port}",
            headers={"Authorization": f"Bearer {SECRETS['ENDCAP_ADMIN_TOKEN']}"},
        )
        assert answer.status_code == 200
        assert client.get("/admin/v1/jobs", base_url=f"http://x:{own.port}").status_code == 404
    finally:
        runtime.close()


@pytest.mark.parametrize("name", OURS)
def test_its_commands_exist(name: str) -> None:
    service = SERVICES[name]
    default = re.search(r'^ENTRYPOINT \["(\w+)"\]$', dockerfile(), re.MULTILINE)
    assert default
    words = [*service.get("entrypoint", [default[1]]), *service["command"]]
    for line in (words, service["healthcheck"]["test"][1:]):
        program, arguments = line[0], line[1:]
        if program == "endcap":
            (entry,) = entry_points(group="endcap.commands", name=arguments[0])
            command = entry.load()
            assert isinstance(command, click.Command)
            command.make_context(arguments[0], arguments[1:])
        elif program == "celery":
            from celery.bin.celery import celery as celery_command

            assert arguments[0] == "-A"
            assert find_spec(arguments[1])
            sub = celery_command.get_command(None, arguments[2])
            rest = arguments[3:]
            if arguments[2] == "inspect":
                rest = rest[1:]
            known = {option for parameter in sub.params for option in parameter.opts}
            assert {one for one in rest if one.startswith("--")} <= known, arguments
        else:
            assert program == "python"
            compile(arguments[1], name, "exec")
    if name == "worker":
        queues = {words[place + 1] for place, word in enumerate(words) if word == "--queue"}
        assert queues >= {job.queue for job in load_jobs().values()}


def test_images_are_pinned_and_watched() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":\d+\.\d+[\w.-]*$", service["image"]), name
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert check["interval"], name
        assert check["retries"], name
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, (name, other)
            assert how["condition"] == "service_healthy"
    assert all(
        re.search(r":\d+\.\d+\.\d+-", line) for line in re.findall(r"^FROM (python\S+)", dockerfile(), re.MULTILINE)
    )


def test_nobody_is_root() -> None:
    assert re.findall(r"^USER (\w+)$", dockerfile(), re.MULTILINE) == ["endcap"]
    for name, service in SERVICES.items():
        if name in OURS:
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True, name
        else:
            assert str(service["user"]).partition(":")[0] not in ("", "0", "root"), name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_the_image_is_built_of_what_is_there() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        part for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.MULTILINE) for part in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / part).exists() for part in copied)
    extras = metadata("endcap").get_all("Provides-Extra") or []
    found = re.findall(r'"\.\[([\w,]+)\$\{EXTRAS:\+,\$EXTRAS\}\]"', dockerfile())
    assert len(found) == dockerfile().count("ARG EXTRAS=") == 2
    for chosen in found:
        assert set(chosen.split(",")) <= set(extras)
    assert COMPOSE["x-build"]["args"] == {"EXTRAS": "${ENDCAP_EXTRAS:-}"}
    stages = set(re.findall(r" AS ([\w-]+)$", dockerfile(), re.MULTILINE))
    assert {SERVICES[name]["build"]["target"] for name in OURS} <= stages
    assert set(re.findall(r"^COPY --from=([\w-]+)", dockerfile(), re.MULTILINE)) <= stages


def test_volumes_are_declared_and_writable() -> None:
    made = re.search(r"install -d -o endcap -g endcap (.*)$", dockerfile(), re.MULTILINE)
    assert made
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert source in COMPOSE["volumes"], (name, source)
            if name in OURS:
                assert target in made[1].split(), (name, target)
    for key in ("ENDCAP_DATA_DIR", "ENDCAP_MODEL_DIR"):
        assert image_environment()[key] in made[1].split()


def test_triton_is_found_where_the_example_says(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = {"ENDCAP_TRITON_URL": "triton:8001", "ENDCAP_TRITON_REPOSITORY": "/triton", "ENDCAP_TRITON_DEVICE": "gpu"}
    assert all(value in (ROOT / ".env.example").read_text() for value in triton.values())
    chosen = settings_of("worker", monkeypatch, SECRETS | triton)
    for name in ("triton", "triton-gpu"):
        assert f"--model-repository={chosen.triton_repository}" in SERVICES[name]["command"]
        assert "--model-control-mode=explicit" in SERVICES[name]["command"]
    assert SERVICES["triton-gpu"]["networks"]["default"]["aliases"] == [chosen.triton_url.partition(":")[0]]
    assert {tuple(SERVICES[name]["profiles"]) for name in ("triton", "triton-gpu")} == {("triton",), ("gpu",)}


def test_it_can_be_left_alone_for_months() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"].keys() >= {"max-size", "max-file"}, f"{name} fills the disk with its log"
    for name in OURS:
        assert SERVICES[name]["init"] is True, f"{name} leaves dead processes behind"


def test_what_is_fetched_goes_where_it_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system is read-only but for the volumes and /tmp."""
    volumes = [volume.split(":")[1] for volume in SERVICES["reranker"]["volumes"]]
    for name in ("HF_HOME", "ENDCAP_DATA_DIR", "ENDCAP_MODEL_DIR"):
        place = Path(image_environment()[name])
        assert any(str(one) in volumes for one in (place, *place.parents)), name
    from huggingface_hub import constants

    assert "HF_HOME" in Path(constants.__file__).read_text()


def test_other_settings_have_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What .env holds reaches no container by itself."""
    for name in OURS:
        assert SERVICES[name]["env_file"] == [{"path": "endcap.env", "required": False}]
    documented = re.search(r"`(ENDCAP_TRUSTED_PROXIES)=([^`]+)`", (ROOT / "docs" / "server.md").read_text())
    assert documented
    monkeypatch.setenv(documented[1], documented[2])
    assert load_settings().trusted_proxies == ["10.0.0.0/8"]
