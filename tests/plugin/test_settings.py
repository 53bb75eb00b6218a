"""Where settings come from, what is said about wrong ones, and that their documentation is theirs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from endcap.commands.settings import kind, markdown
from endcap.commands.settings import settings as command
from endcap.errors import ConfigurationError
from endcap.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings of the person who runs the tests."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("ENDCAP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documentation_is_the_table() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == markdown(), (
        "run: endcap settings --markdown > docs/settings.md"
    )


def test_every_setting_is_described_and_of_a_kind_that_people_know() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert kind(field.annotation), name


def test_stronger_sources_win(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().window == 100
    (elsewhere / "endcap.toml").write_text('window = 20\nindex = "shop"\n[field_roles]\nbrand = "maker"\n')
    assert load_settings().window == 20
    assert load_settings().field_roles == {"brand": "maker"}
    monkeypatch.setenv("ENDCAP_WINDOW", "30")
    assert load_settings().window == 30
    assert load_settings(window=40).window == 40
    assert load_settings(window=40).index == "shop"


def test_another_file_can_be_named_and_must_be_there(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "endcap.toml").write_text("window = 20\n")
    (elsewhere / "other.toml").write_text("window = 25\n")
    monkeypatch.setenv("ENDCAP_CONFIG", "other.toml")
    assert load_settings().window == 25
    monkeypatch.setenv("ENDCAP_CONFIG", "missing.toml")
    with pytest.raises(ConfigurationError, match=r"ENDCAP_CONFIG names missing\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("windo = 3", "no setting windo .did you mean window"),
        ("wholly_unheard_of = 3", "no setting wholly_unheard_of`?"),
        ('window = "many"', "window: .*integer"),
        ("window = 0", "window: .*greater than or equal to 1"),
        ('engine_url = "localhost:9200"', "engine_url: .*http"),
        ("window = ", "endcap.toml is not TOML"),
    ],
)
def test_wrong_files_are_answered_with_what_is_wrong(elsewhere: Path, content: str, message: str) -> None:
    (elsewhere / "endcap.toml").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        load_settings()


def test_a_list_in_a_variable_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_CORS_ORIGINS", '["https://shop.example"]')
    assert load_settings().cors_origins == ["https://shop.example"]
    monkeypatch.setenv("ENDCAP_CORS_ORIGINS", "https://shop.example")
    with pytest.raises(ConfigurationError, match=r"cors_origins.*JSON"):
        load_settings()


def test_an_unknown_variable_is_warned_about(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("ENDCAP_WINDWO", "30")
    monkeypatch.setenv("ENDCAP_TEST_ANYTHING", "1")
    with caplog.at_level(logging.WARNING):
        assert load_settings().window == 100
    assert [record.getMessage() for record in caplog.records] == [
        "the environment variable ENDCAP_WINDWO is no setting (did you mean ENDCAP_WINDOW?)"
    ]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_values_are_shown_with_their_source(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "endcap.toml").write_text("window = 20\n")
    monkeypatch.setenv("ENDCAP_PORT", "81")
    rows = json.loads(run("--json"))
    assert rows.keys() == Settings.model_fields.keys()
    assert rows["window"] == {"value": 20, "source": "endcap.toml"}
    assert rows["port"] == {"value": 81, "source": "ENDCAP_PORT"}
    assert rows["index"] == {"value": "products", "source": "default"}
    table = run()
    for name in Settings.model_fields:
        assert name in table


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--markdown",)])
def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("ENDCAP_ENGINE_API_KEY", "hush-1")
    monkeypatch.setenv("ENDCAP_ENGINE_PASSWORD", "hush-2")
    monkeypatch.setenv("ENDCAP_SHOPPER_SECRET", "hush-3")
    monkeypatch.setenv("ENDCAP_DATABASE_URL", "postgresql://me:hush-4@db.example/endcap")
    monkeypatch.setenv("ENDCAP_REDIS_URL", "redis://:hush-5@cache.example/0")
    monkeypatch.setenv("ENDCAP_ENGINE_URL", "https://me:hush-6@search.example")
    output = run(*arguments)
    assert "hush" not in output
    if arguments != ("--markdown",):
        assert "(set)" in output
        assert "db.example/endcap" in output
