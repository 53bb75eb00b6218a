"""Logs and shops that teach little or nothing: a clear error, or a sane model; nothing half done is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock

from endcap.catalog import Product
from endcap.errors import BundleRefused, ConfigurationError, TooLittle
from endcap.events import Action, Event
from endcap.settings import Settings, settings_environment
from endcap_workers.training.cases import CaseWriter
from endcap_workers.training.command import train as train_command
from endcap_workers.training.train import Request, Trained, train
from tests.workers.train_support import START, events, products, shop

REQUEST = Request(lists=300, epochs=1)
OTHERS = [Product(f"q{number}", categories=("Shop",)) for number in range(20)]


def trained(settings: Settings, request: Request = REQUEST) -> Trained:
    made = train(settings, request, settings.data_dir / "training")
    assert made is not None
    return made


def only(one: Event, count: int = 300) -> list[Event]:
    return [replace(one, id=f"{one.id}{number}") for number in range(count)]


PURCHASE = Event("e", START, "ann", Action.PURCHASE, "p1")


@pytest.mark.parametrize(
    ("log", "stock", "message"),
    [
        pytest.param([], None, "the log holds 0 clicks", id="empty log"),
        pytest.param(events()[:20], None, "the log holds 20 clicks", id="a handful"),
        pytest.param(only(PURCHASE), None, "within one minute", id="all identical"),
        pytest.param(events(), products(1), "has 1 product:", id="one product"),
        pytest.param(events(), [], "products", id="no products"),
        pytest.param(events(), OTHERS, "lists could be made", id="products all gone"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_said(
    tmp_path: Path, log: list[Event], stock: list[Product] | None, message: str
) -> None:
    settings = shop(tmp_path, log, stock)
    with pytest.raises(TooLittle, match=message):
        trained(settings)
    assert not list(settings.models_folder.glob("*")), "nothing was left behind"


def test_one_shopper_odd_prices_and_vanished_products_still_give_a_model(tmp_path: Path) -> None:
    stock = [
        Product(
            one.id, one.title, brand=one.brand, categories=one.categories,
            price=[float("nan"), float("inf"), -1.0, None, 3.0][number % 5],
        )
        for number, one in enumerate(products())
        if number % 9
    ]  # fmt: skip
    made = trained(shop(tmp_path, events(shoppers=1, days=300), stock))
    assert np.isfinite(made.metrics["held-out ndcg@10"])


def test_two_commands_do_not_train_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = shop(tmp_path, [])
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "training").mkdir()
    with FileLock(tmp_path / "training" / "interest-0.lock"):
        other = CliRunner().invoke(train_command, ["--fresh"])
    assert isinstance(other.exception, ConfigurationError)
    assert "another `endcap train` is at work" in str(other.exception)
    assert isinstance(CliRunner().invoke(train_command, ["--fresh"]).exception, TooLittle), (
        "the lock goes with its holder"
    )


def test_a_full_disk_while_cases_are_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = shop(tmp_path, events(shoppers=10, days=40))

    def full(writer: CaseWriter, case: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CaseWriter, "add", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        trained(settings)
    assert not (settings.data_dir / "training").exists()


def test_a_full_disk_while_exporting_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = shop(tmp_path, events(shoppers=20, days=60))
    trained(settings)
    before = sorted(settings.models_folder.iterdir())

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("endcap.bundles.write_through", full)
    with pytest.raises(BundleRefused, match="No space left"):
        trained(settings, replace(REQUEST, seed=9))
    assert sorted(settings.models_folder.iterdir()) == before
