"""English, German and Chinese in one shop: words, compounds, umlauts, meaning across languages, filters on vectors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from endcap.catalog.product import Product
from endcap.compounds import Compounds, splits_compounds
from endcap.encoders import TextEncoder, open_text_encoder
from endcap.engines import Engine, Filter, SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import ConfigurationError
from endcap.indexing import index_products
from endcap.recall import Recaller
from endcap.runtime import Runtime, open_runtime
from endcap.settings import load_settings
from endcap.synonyms import Expansion
from endcap_reranker.app import create_app
from tests.plugin.elasticsearch_support import Make, index, make, no_drain
from tests.services.fixtures import missing

__all__ = ["index", "make", "no_drain"]

PRODUCTS = [
    Product("en-phone", "Phone case, red silicone", brand="Cover", categories=("Phones", "Cases"), price=12.0),
    Product("en-fridge", "Fridge freezer, white", brand="Frost", categories=("Kitchen", "Fridges"), price=499.0),
    Product("en-coffee", "Ground coffee, dark roast", brand="Bean", categories=("Grocery", "Coffee"), price=6.0),
    Product("en-paper", "Wallpaper, striped", brand="Deco", categories=("Home", "Walls"), price=15.0),
    Product("de-phone", "Handyhülle aus rotem Silikon", brand="Hülle", categories=("Handys", "Hüllen"), price=14.0),
    Product("de-fridge", "Kühlschrank mit Gefrierfach, weiß", brand="Frost", categories=("Küche",), price=549.0),
    Product("de-shoes", "Laufschuhe für Männer", brand="Fuß", categories=("Schuhe",), price=89.0),
    Product("de-paper", "Gestreifte Tapete", brand="Deko", categories=("Wohnen",), price=19.0),
    Product("zh-phone", "红色硅胶手机壳", "柔软防摔", "小米", ("手机", "配件"), 39.0),
    Product("zh-fridge", "白色双门冰箱", "大容量", "海尔", ("家电",), 2999.0),
    Product("zh-coffee", "深度烘焙咖啡粉", "香浓", "云南", ("食品",), 45.0),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    made = open_text_encoder(load_settings(data_dir=tmp_path_factory.mktemp("model"), text_encoder="use-multilingual"))
    assert made is not None
    return made


@pytest.fixture
def embedded(tmp_path: Path, encoder: TextEncoder) -> Iterator[Engine]:
    engine = EmbeddedEngine(tmp_path, "shop")
    index_products(PRODUCTS, engine, encoder)
    yield engine
    engine.close()


def words(engine: Engine, text: str, *filters: Filter) -> list[str]:
    return [hit.id for hit in engine.search(SearchRequest(text, filters)).hits]


def check(engine: Engine, encoder: TextEncoder) -> None:
    # Words: what each language writes its own way.
    assert words(engine, "phone cases") == ["en-phone"]
    assert words(engine, "KÜHLSCHRANK") == ["de-fridge"]
    assert words(engine, "handyhülle") == ["de-phone"]
    assert words(engine, "lauf schuhe") == ["de-shoes"], "a compound, written apart"
    assert words(engine, "kuhlschrank") == ["de-fridge"], "no umlaut on the keyboard"
    assert words(engine, "Weiß") == ["de-fridge"]
    assert words(engine, "手机壳") == ["zh-phone"]
    assert words(engine, "双门 冰箱") == ["zh-fridge"]
    assert words(engine, "咖啡") == ["zh-coffee"]
    # Meaning: the same thing is near, whatever it is called.
    recaller = Recaller(engine, encoder)

    def found(text: str, *filters: Filter) -> list[str]:
        return recaller.recall(SearchRequest(text, filters), 10).ids

    def near(text: str, count: int, *filters: Filter) -> set[str]:
        return set(engine.nearest(encoder.encode_query(text), count, filters).ids)

    assert near("refrigerator", 3) == near("冰箱", 3) == {"en-fridge", "de-fridge", "zh-fridge"}
    assert near("手机壳", 3) == {"en-phone", "de-phone", "zh-phone"}
    assert near("Kaffee", 2) == {"en-coffee", "zh-coffee"}
    assert found("refrigerator") == ["en-fridge", "de-fridge"], "no word of it is in either"
    assert found("Kühlschrank")[0] == "de-fridge", "the word and the meaning before the meaning alone"
    assert "en-fridge" in found("Kühlschrank")
    assert found("手机壳")[0] == "zh-phone"
    assert found("asdfgh qwert") == []
    # Filters hold for both kinds of recall, and choose before the nearest are counted.
    cheap = Filter("price", lte=20.0)
    left = near("refrigerator", 3, cheap)
    assert len(left) == 3
    assert not {"en-fridge", "de-fridge", "zh-fridge"} & left
    assert set(found("手机壳", Filter("brand", ("小米",)))) == {"zh-phone"}
    assert set(found("Handyhülle", cheap)) <= {"en-phone", "de-phone", "en-paper", "de-paper", "en-coffee"}


def test_the_embedded_engine(embedded: Engine, encoder: TextEncoder) -> None:
    check(embedded, encoder)


@pytest.mark.elasticsearch
def test_elasticsearch(make: Make, encoder: TextEncoder) -> None:
    engine = make()
    index_products(PRODUCTS, engine, encoder)
    check(engine, encoder)


GERMAN = [
    Product("kettle", "Wasserkocher 1,7 l, Edelstahl"),
    Product("egg", "Eierkocher für 7 Eier"),
    Product("filter", "Wasserfilter mit Kartusche"),
    Product("teapot", "Teekanne aus Porzellan"),
    Product("watering", "Gießkannen für den Balkon, 5 l"),
    Product("tea", "Grüner Tee, lose"),
    Product("pot", "Gusseiserne Kanne"),
    Product("machine", "Küchenmaschine mit Rührschüssel"),
    Product("bag", "Schultasche, blau"),
    Product("school", "Heft für die Schule"),
    Product("watch", "Armbanduhr aus Leder"),
    Product("band", "Armband, silbern"),
    Product("atlas", "Bildatlas der Ruhr"),
    Product("suit", "Anzüge für Herren"),
]


def check_german(engine: Engine, folds: bool) -> None:
    """``folds``: the engine's analyzer strips German endings and accents."""
    learnt = Compounds(product.title for product in GERMAN)
    recaller = Recaller(engine, None, compounds=lambda: learnt)

    def found(text: str) -> set[str]:
        return set(recaller.recall(SearchRequest(text), 10).ids)

    assert found("Kocher") == {"kettle", "egg"}
    assert recaller.recall(SearchRequest("Kanne"), 10).ids[0] == "pot", "the word itself first"
    assert found("Kanne") == found("Kannen") == {"pot", "teapot", "watering"}
    assert found("kanne porzellan") == {"teapot"}
    assert found("Tasche") == {"bag"}
    assert found("Uhr") == {"watch"}, "no Ruhr"
    assert found("Tee") == {"tea"}, "a Teekanne is no tea"
    assert found("Maschine") == {"machine"}
    if folds:
        assert found("Anzug") == {"suit"}
        assert found("Heft für Schulen") == {"school"}
    assert found("wasser kocher") == {"kettle"}


def test_german_compounds_and_endings_on_the_embedded_engine(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, "shop", language="german")
    index_products(GERMAN, engine, None)
    check_german(engine, True)
    shown = engine.search(SearchRequest("Anzug", highlight=True)).hits[0]
    assert shown.highlights["title"] == ["<em>Anzüge</em> für Herren"]
    engine.close()
    other = EmbeddedEngine(tmp_path, "shop")
    assert [hit.id for hit in other.search(SearchRequest("Anzug")).hits] == ["suit"], "an index keeps its language"
    with pytest.raises(ConfigurationError, match=r"made for german.*endcap index --rebuild"):
        other.ensure(None, "")
    with other.rebuild(None, "") as rebuild:
        rebuild.upsert([(product, None, "") for product in GERMAN])
    other.ensure(None, "")
    other.close()


@pytest.mark.elasticsearch
def test_german_compounds_on_elasticsearch(make: Make) -> None:
    engine = make()
    index_products(GERMAN, engine, None)
    check_german(engine, False)


@pytest.mark.elasticsearch
def test_german_endings_on_elasticsearch(make: Make) -> None:
    engine = make(analyzer="german")
    try:
        index_products(GERMAN, engine, None)
    except ConfigurationError as error:
        missing(f"elasticsearch with the analyzer german (a JDK's javac adds it): {error}")
    check_german(engine, True)
    shown = engine.search(SearchRequest("Anzug", highlight=True)).hits[0]
    assert shown.highlights["title"] == ["<em>Anzüge</em> für Herren"]
    assert [hit.id for hit in make().search(SearchRequest("Anzug")).hits] == ["suit"], "an index keeps its language"


def test_the_setting_names_a_language_for_both_engines(tmp_path: Path) -> None:
    def opened(**settings: str) -> Runtime:
        return open_runtime(load_settings(data_dir=tmp_path / "shop", text_encoder="none", **settings), start=False)

    runtime = opened(analyzer="german")
    index_products(GERMAN, runtime.engine, None)
    runtime.upkeep.reload()
    runtime.discovery.refresh()
    client = create_app(runtime).test_client()
    assert {hit["id"] for hit in client.get("/v1/search?q=Kocher").get_json()["hits"]} == {"kettle", "egg"}
    runtime.close()
    assert not splits_compounds(load_settings(analyzer="german", compounds="off"))
    assert splits_compounds(load_settings(compounds="on"))
    assert not splits_compounds(load_settings())


def test_parts_are_words_of_the_catalogue() -> None:
    learnt = Compounds([*(one.title for one in GERMAN), "Küche", "Maschine", "Tasche"])
    assert learnt.parts("Küchenmaschine") == ("küche", "maschine")
    assert learnt.parts("Schultasche") == ("schule", "tasche")
    assert learnt.parts("Wasserkocher") is None, "there is no Kocher by itself"
    assert learnt.expand(Expansion("Küchenmaschine blau")).variants == ("küche maschine blau",)
    assert Compounds().expand(Expansion("Kanne")) == Expansion("Kanne")
    many = Compounds(f"{first}tasche" for first in ("hand", "schul", "reise", *(f"beutel{'x' * n}" for n in range(40))))
    assert len(many.expand(Expansion("tasche")).variants) == 12
    assert learnt.expand(Expansion("x" * 10_000)).variants == ()


@pytest.mark.parametrize("text", ["the", "of the", "the and of to", "der die das", "的"])
def test_a_query_of_nothing_but_function_words_is_answered(embedded: Engine, text: str) -> None:
    answer = embedded.search(SearchRequest(text))
    assert answer.total == len(answer.hits)


@pytest.mark.parametrize("text", ["x" * 10_000, "phone " * 2_000, "手机" * 5_000, "\\*:* AND [a TO z]" * 600])
def test_ten_thousand_characters_are_answered(embedded: Engine, encoder: TextEncoder, text: str) -> None:
    recall = Recaller(embedded, encoder).recall(SearchRequest(text), 10)
    assert len(recall.ids) <= len(PRODUCTS)
