"""English, German and Chinese in one shop: words, compounds, umlauts, meaning across languages, filters on vectors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from endcap.catalog.product import Product
from endcap.encoders import TextEncoder, open_text_encoder
from endcap.engines import Engine, Filter, SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.indexing import index_products
from endcap.recall import Recaller
from endcap.settings import load_settings
from tests.plugin.elasticsearch_support import Make, index, make, no_drain

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


@pytest.mark.parametrize("text", ["the", "of the", "the and of to", "der die das", "的"])
def test_a_query_of_nothing_but_function_words_is_answered(embedded: Engine, text: str) -> None:
    answer = embedded.search(SearchRequest(text))
    assert answer.total == len(answer.hits)


@pytest.mark.parametrize("text", ["x" * 10_000, "phone " * 2_000, "手机" * 5_000, "\\*:* AND [a TO z]" * 600])
def test_ten_thousand_characters_are_answered(embedded: Engine, encoder: TextEncoder, text: str) -> None:
    recall = Recaller(embedded, encoder).recall(SearchRequest(text), 10)
    assert len(recall.ids) <= len(PRODUCTS)
