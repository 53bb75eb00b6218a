"""A real Elasticsearch, single node, from the distribution that Maven Central carries."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.services.places import java_home, made_once, maven_repository
from tests.services.process import Server, ServiceMissing, answers, free_port, service_user

VERSION = "8.19.21"
ARTIFACT = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"
HEAP = "-Xms768m -Xmx768m"

#: The distribution has no language's analyzer, but Lucene's classes of them, and takes plugins: this one gives it what
#: a whole Elasticsearch calls "german".
GERMAN = """package endcap.tests;

@org.elasticsearch.plugin.NamedComponent("german")
public class German implements org.elasticsearch.plugin.analysis.AnalyzerFactory {
    @Override
    public org.apache.lucene.analysis.Analyzer create() {
        return new org.apache.lucene.analysis.de.GermanAnalyzer();
    }
}
"""


def distribution() -> Path:
    """The unpacked distribution.

    Raises:
        ServiceMissing: it was not downloaded.
    """
    archive = (
        maven_repository()
        / f"org/elasticsearch/distribution/integ-test-zip/elasticsearch/{VERSION}/elasticsearch-{VERSION}.zip"
    )

    def unpack(folder: Path) -> None:
        if not archive.is_file():
            raise ServiceMissing(f"Elasticsearch {VERSION} is not downloaded (`make services` does it)")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        for program in folder.glob("*/bin/*"):
            program.chmod(0o755)
        add_german(folder / f"elasticsearch-{VERSION}")

    return made_once(f"elasticsearch-{VERSION}-german", unpack) / f"elasticsearch-{VERSION}"


def add_german(home: Path) -> None:
    """Add the plugin of :data:`GERMAN`; where Java comes without its compiler the distribution stays as it is."""
    compiler = java_home(17) / "bin" / "javac"
    if not compiler.is_file():
        return
    plugin = home / "plugins" / "endcap-german"
    plugin.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "German.java"
        source.write_text(GERMAN)
        libraries = f"{home / 'lib'}/*"
        subprocess.run([compiler, "--release", "17", "-cp", libraries, "-d", scratch, source], check=True)
        with zipfile.ZipFile(plugin / "german.jar", "w") as packed:
            packed.write(Path(scratch) / "endcap" / "tests" / "German.class", "endcap/tests/German.class")
    about = {"name": "endcap-german", "description": "German for the tests", "version": "1", "java.version": "17"}
    lines = [f"{key}={value}\n" for key, value in {**about, "elasticsearch.version": VERSION}.items()]
    (plugin / "stable-plugin-descriptor.properties").write_text("".join(lines))
    components = {"org.elasticsearch.plugin.analysis.AnalyzerFactory": {"german": "endcap.tests.German"}}
    (plugin / "named_components.json").write_text(json.dumps(components))


def start(port: int | None = None, prepare: Callable[[Path], Mapping[str, str]] = lambda _: {}) -> tuple[Server, str]:
    """Start a node of its own; gives the server and its URL.

    ``prepare`` gets the folder of the configuration, may add files to it, and gives lines for elasticsearch.yml.
    """
    home, java = distribution(), java_home(17)
    server = Server("elasticsearch", service_user("nobody", "elasticsearch"))
    try:
        port = port or free_port()
        config = server.folder / "config"
        shutil.copytree(home / "config", config)
        values = {
            "cluster.name": "endcap-tests",
            "node.name": "tests",
            "discovery.type": "single-node",
            "http.port": str(port),
            "transport.port": str(free_port()),
            "path.data": str(server.folder / "data"),
            "path.logs": str(server.folder / "logs"),
            # Test machines' disks are full at times; the default then makes every index read-only.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "xpack.security.enabled": "false",
            "xpack.ml.enabled": "false",
            **prepare(config),
        }
        (config / "elasticsearch.yml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
        server.own(config)
        scratch = server.folder / "tmp"
        scratch.mkdir()
        server.own(scratch)
        secured = values["xpack.security.enabled"] == "true"
        url = f"{'https' if secured else 'http'}://127.0.0.1:{port}"
        ready = f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s"
        server.start(
            [str(home / "bin" / "elasticsearch")],
            (lambda: listening(port)) if secured else (lambda: answers(ready)),
            timeout_s=600,
            env={
                "ES_JAVA_HOME": str(java),
                "ES_JAVA_OPTS": HEAP,
                "ES_PATH_CONF": str(config),
                "ES_TMPDIR": str(scratch),
                # The launcher is a JVM too, and it stays.
                "CLI_JAVA_OPTS": "-Xms16m -Xmx64m -XX:+UseSerialGC",
            },
        )
    except BaseException:
        server.stop()
        raise
    return server, url


@dataclass(frozen=True, slots=True)
class Secured:
    """A node with security: its URL (https), the CA file of its certificate, and two users with one password: a
    superuser, and one who may do what he likes to indices named ``products-*`` and nothing else.

    API keys cannot be made here: the index that holds them wants analyzers that this distribution lacks.
    """

    url: str
    ca_file: str
    username: str
    restricted: str
    password: str


def start_secured(folder: Path) -> tuple[Server, Secured]:
    """Start a node that wants TLS and a password. Its certificate is made in ``folder``."""
    username, restricted, password = "endcap", "shop", "a long p:ssword"
    store, certificate = folder / "http.p12", folder / "ca.pem"
    keytool = [str(java_home(17) / "bin" / "keytool"), "-keystore", str(store), "-storepass", password]
    make = ["-genkeypair", "-alias", "http", "-keyalg", "EC", "-dname", "CN=tests", "-ext", "san=ip:127.0.0.1"]
    subprocess.run([*keytool, *make, "-storetype", "PKCS12", "-validity", "30"], check=True, capture_output=True)
    export = ["-exportcert", "-rfc", "-alias", "http", "-file", str(certificate)]
    subprocess.run([*keytool, *export], check=True, capture_output=True)

    def prepare(config: Path) -> dict[str, str]:
        shutil.copy(store, config / store.name)
        digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
        (config / "users").write_text(f"{username}:{{SHA}}{digest}\n{restricted}:{{SHA}}{digest}\n")
        (config / "users_roles").write_text(f"superuser:{username}\nproducts:{restricted}\n")
        (config / "roles.yml").write_text("products:\n  indices:\n  - names: ['products-*']\n    privileges: [all]\n")
        return {
            "xpack.security.enabled": "true",
            "xpack.security.transport.ssl.enabled": "false",
            "xpack.security.http.ssl.enabled": "true",
            "xpack.security.http.ssl.keystore.path": store.name,
            "xpack.security.http.ssl.keystore.password": password,
        }

    server, url = start(prepare=prepare)
    return server, Secured(url, str(certificate), username, restricted, password)


def listening(port: int) -> bool:
    """Whether anything accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
