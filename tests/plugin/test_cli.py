"""The command line as people use it: real files, the real engine, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from endcap.engines.embedded.engine import EmbeddedEngine

#: The ``endcap`` script, whether or not the virtual environment's folder is on the path.
ENDCAP = (sys.executable, "-c", "from endcap.cli import main; main()")
Run = Callable[..., subprocess.CompletedProcess[str]]

CATALOGUE = """\
sku,name,maker,price,stock
1,Green tea,Acme,4.50,3
2,Black tea,Acme,oops,3
3,Kettle,Boil & Co,29.00,0
,No id,Acme,1,1
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith("ENDCAP_")}
    return {**own, "ENDCAP_DATA_DIR": str(tmp_path / "data"), "ENDCAP_TEXT_ENCODER": "none"}


@pytest.fixture
def endcap(tmp_path: Path, environment: dict[str, str]) -> Run:
    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ENDCAP, *map(str, arguments)],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def engine(tmp_path: Path) -> EmbeddedEngine:
    return EmbeddedEngine(tmp_path / "data", "products")


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.csv"
    path.write_text(CATALOGUE)
    return path


def ids(engine: EmbeddedEngine) -> list[str]:
    return sorted(product.id for batch in engine.scan(vectors=False) for product, _ in batch)


def test_help_lists_the_commands(endcap: Run) -> None:
    done = endcap("--help")
    assert done.returncode == 0
    for command in ("index", "delete", "settings"):
        assert f"  {command}" in done.stdout
    assert "--delete-missing" in endcap("index", "--help").stdout


def test_index_takes_the_good_rows_and_writes_down_the_bad_ones(
    endcap: Run, engine: EmbeddedEngine, catalogue: Path, tmp_path: Path
) -> None:
    done = endcap("index", catalogue)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 indexed, 2 rejected in ")
    assert ids(engine) == ["1", "3"]
    assert engine.get(["3"]) == [{"id": "3", "title": "Kettle", "brand": "Boil & Co", "price": 29.0, "stock": 0.0}]
    rejects = [json.loads(line) for line in (tmp_path / "data" / "rejects.jsonl").read_text().splitlines()]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (3, "the price is not a number: 'oops' is not a number"),
        (5, "the id is missing"),
    ]
    assert "rejects.jsonl" in done.stderr
    again = endcap("index", catalogue, "--rejects", "other.jsonl")
    assert again.stdout.startswith("0 indexed, 2 unchanged, 2 rejected in ")
    assert (tmp_path / "other.jsonl").is_file()


def test_index_deletes_what_is_missing_but_not_what_was_rejected(
    endcap: Run, engine: EmbeddedEngine, catalogue: Path
) -> None:
    catalogue.write_text(CATALOGUE.replace("oops", "5"))
    endcap("index", catalogue)
    assert ids(engine) == ["1", "2", "3"]
    catalogue.write_text(CATALOGUE.replace("3,Kettle", "4,Kettle"))
    done = endcap("index", catalogue, "--delete-missing")
    assert "1 deleted" in done.stdout
    assert ids(engine) == ["1", "2", "4"]


def test_a_file_that_breaks_off_deletes_nothing(
    endcap: Run, engine: EmbeddedEngine, catalogue: Path, tmp_path: Path
) -> None:
    endcap("index", catalogue)
    broken = tmp_path / "broken.json"
    broken.write_text('[{"id": "1", "title": "Green tea"}, {"id": "2", ')
    done = endcap("index", broken, "--delete-missing")
    assert done.returncode == 0
    assert "nothing was deleted" in done.stderr
    assert ids(engine) == ["1", "3"]


def test_index_partial_changes_price_and_stock_alone(
    endcap: Run, engine: EmbeddedEngine, catalogue: Path, tmp_path: Path
) -> None:
    endcap("index", catalogue)
    changes = tmp_path / "changes.jsonl"
    changes.write_text('{"sku": "3", "price": "31,50 €", "stock": 7}\n{"sku": "none", "price": 1}\n')
    done = endcap("index", "--partial", changes, ENDCAP_TEXT_ENCODER="package:not-needed-here")
    assert done.returncode == 0, done.stderr
    assert "1 updated, 1 rejected" in done.stdout
    assert engine.get(["3"]) == [{"id": "3", "title": "Kettle", "brand": "Boil & Co", "price": 31.5, "stock": 7.0}]


def test_rebuild_replaces_the_index(endcap: Run, engine: EmbeddedEngine, catalogue: Path) -> None:
    endcap("index", catalogue)
    catalogue.write_text("sku,name\n9,New\n")
    assert endcap("index", catalogue, "--rebuild").returncode == 0
    assert ids(engine) == ["9"]
    catalogue.write_text("sku,name\n,None\n")
    done = endcap("index", catalogue, "--rebuild")
    assert done.returncode == 1
    assert ids(engine) == ["9"]


def test_delete_takes_ids_and_a_file(endcap: Run, engine: EmbeddedEngine, catalogue: Path, tmp_path: Path) -> None:
    catalogue.write_text("id\n" + "\n".join(map(str, range(10))) + "\n")
    endcap("index", catalogue)
    (tmp_path / "gone.txt").write_text("3\n\n4\n")
    done = endcap("delete", "1", "none", "--file", "gone.txt")
    assert done.returncode == 0, done.stderr
    assert "deleted 3 of 4 products" in done.stdout
    assert "none: there is no such product" in done.stderr
    assert ids(engine) == ["0", "2", "5", "6", "7", "8", "9"]
    assert endcap("delete", "none").returncode == 1
    assert endcap("delete").returncode == 2


def test_roles_are_shown_and_named(endcap: Run, engine: EmbeddedEngine, catalogue: Path) -> None:
    done = endcap("index", "--show-roles", catalogue, "--map", "title=maker")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["id", "sku", "(guessed)", "e.g.", "1"] in lines
    assert ["title", "maker", "(set)", "e.g.", "Acme"] in lines
    assert ["attributes", "name"] in lines
    assert engine.count() == 0
    endcap("index", catalogue, "--map", "title=maker", "--map", "brand=name")
    assert engine.get(["1"]) == [{"id": "1", "title": "Acme", "brand": "Green tea", "price": 4.5, "stock": 3.0}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-file.csv"], "cannot be read"),
        (["."], "is a folder"),
        (["nothing.csv"], "nothing was indexed"),
        (["colours.csv"], "--map id=FIELD"),
        (["colours.csv", "--map", "id=color"], "Did you mean 'colour'"),
        (["colours.csv", "--map", "idd=colour"], "did you mean 'id'"),
        (["colours.csv", "--map", "id"], "ROLE=FIELD"),
        (["colours.csv", "--partial", "--rebuild"], "--partial goes with neither"),
        (["colours.csv", "--rejects", "colours.csv"], "one of the files to read"),
        (["colours.csv", "--encoder", "package:no-such"], "package 'no-such' is not installed"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_a_bad_status(
    endcap: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "colours.csv").write_text("colour,n\nred,1\nblue,2\n")
    done = endcap("index", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_is_not_there_is_one_clear_line(endcap: Run, catalogue: Path) -> None:
    done = endcap("index", catalogue, ENDCAP_ENGINE_URL="http://127.0.0.1:9", ENDCAP_ENGINE_TIMEOUT_S="2")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_run_goes_on_where_it_was(
    endcap: Run, engine: EmbeddedEngine, environment: dict[str, str], tmp_path: Path
) -> None:
    total = 6_000
    catalogue = tmp_path / "large.jsonl"
    with catalogue.open("w") as stream:
        for n in range(total):
            stream.write(json.dumps({"id": f"p{n}", "title": f"thing {n}", "description": "some words " * 20}) + "\n")
    # The run kills itself the moment its first batch is durable, and every batch is: by the clock, or by a signal from
    # here, that could come after the end.
    killed_at_once = (
        "import os, signal\n"
        "from endcap.catalog.checkpoint import Checkpoint\n"
        "from endcap.indexing import index_products\n"
        "index_products.__kwdefaults__['durable_every_s'] = 0.0\n"
        "save = Checkpoint.save\n"
        "Checkpoint.save = lambda *given: (save(*given), os.kill(os.getpid(), signal.SIGKILL))\n"
        "from endcap.cli import main\n"
        "main()\n"
    )
    broken_off = subprocess.run(
        [sys.executable, "-c", killed_at_once, "index", str(catalogue)], cwd=tmp_path, env=environment, timeout=120
    )
    assert broken_off.returncode == -signal.SIGKILL
    durable = json.loads(next((tmp_path / "data").glob("indexing/*.json")).read_text())["products"]
    assert 0 < durable < total
    assert engine.count() >= durable
    done = endcap("index", catalogue)
    assert done.returncode == 0, done.stderr
    assert f"broke off after {durable:,} products" in done.stderr
    indexed, unchanged = (int(part.split()[0].replace(",", "")) for part in done.stdout.split(", ")[:2])
    assert unchanged >= durable
    assert indexed + unchanged == total
    assert engine.count() == total
    assert not list((tmp_path / "data").glob("indexing/*.json"))


def test_the_same_commands_fill_elasticsearch(endcap: Run, elasticsearch: str, catalogue: Path, tmp_path: Path) -> None:
    from endcap.engines.elasticsearch import ElasticsearchEngine
    from endcap.settings import Settings

    where = {"engine_url": elasticsearch, "index": "endcap-test-cli"}
    variables = {f"ENDCAP_{name.upper()}": value for name, value in where.items()}
    catalogue.write_text(
        "sku,name,maker,category,price,colour,size\n"
        "1,Green tea,Acme,Grocery > Tea,4.50,green,5\n"
        "2,Black tea,Acme,Grocery > Tea,5.50,,7\n"
        "3,Kettle,Boil & Co,Kitchen,29.00,steel,\n"
    )
    first = endcap("index", catalogue, "--rebuild", **variables)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("3 indexed, 0 rejected")
    again = endcap("index", catalogue, **variables)
    assert again.stdout.startswith("0 indexed, 3 unchanged")
    catalogue.write_text(
        "sku,name,maker,category,price,colour,size\n"
        "1,Green tea,Acme,Pantry > Tea,4.75,,6\n"  # the encoded text stays: the leaf is the same
        "2,Black tea,Acme,Grocery > Tea,5.50,,7\n"
        "4,Teapot,Boil & Co,Kitchen,19.00,blue,\n"
    )
    third = endcap("index", catalogue, "--delete-missing", **variables)
    assert third.stdout.startswith("1 indexed, 1 updated, 1 unchanged, 1 deleted, 0 rejected"), third
    changes = tmp_path / "changes.csv"
    changes.write_text("sku,stock,colour\n4,12,red\n3,1,\n")
    partial = endcap("index", "--partial", changes, **variables)
    assert partial.stdout.startswith("0 indexed, 1 updated, 1 rejected")
    engine = ElasticsearchEngine(Settings(**where))  # type: ignore[arg-type]
    try:
        one, two, gone, four = engine.get(["1", "2", "3", "4"])
    finally:
        engine.close()
    assert one == {
        "id": "1",
        "title": "Green tea",
        "brand": "Acme",
        "category": ["Pantry", "Pantry > Tea"],
        "price": 4.75,
        "attributes": {"size": 6},
    }
    assert two is not None
    assert two["attributes"] == {"size": 7}
    assert gone is None
    assert four is not None
    assert (four["stock"], four["attributes"]) == (12.0, {"colour": "red"})
    assert endcap("delete", "1", "2", "4", **variables).stdout.startswith("deleted 3 of 3")
