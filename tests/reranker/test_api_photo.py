"""Search by photo through ``/v1/search``, with the packaged network over both engines, and ``endcap photos``."""

from __future__ import annotations

import base64
import io
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from endcap.catalog.product import Product
from endcap.commands.photos import photos
from endcap.images.errors import PhotosBusy
from endcap.indexing import index_products
from endcap.runtime import Runtime, open_runtime
from endcap.settings import Settings, load_settings
from endcap_reranker.api.photo import PhotoSlots
from endcap_reranker.app import create_app
from tests.photo_support import drawn, packaged_encoders, small_clip
from tests.plugin.test_images import png_header, serving, shelf
from tests.reranker.test_api_search import refused

LIMIT = 300_000
PRODUCTS = [
    Product(id="ball", title="Orange ball", brand="Acme", categories=("Toys",), price=5.0, image="ball.jpg"),
    Product(id="ball-2", title="Large ball", brand="Other", categories=("Toys",), price=9.0, image="/ball-2.jpg"),
    Product(id="grid", title="Wire grid", brand="Acme", categories=("Garden",), price=7.0, image="grid.jpg"),
    Product(id="box", title="Blue box", brand="Acme", categories=("Home",), price=3.0, image="box.jpg"),
    Product(id="gone", title="Old ball", brand="Acme", categories=("Toys",), price=1.0, image="ball.jpg"),
    Product(id="text", title="A ball without a picture", brand="Acme", categories=("Toys",), price=2.0),
    Product(id="lost", title="Lost ball", brand="Acme", categories=("Toys",), price=2.0, image="../secret.jpg"),
    Product(id="broken", title="Broken ball", brand="Acme", categories=("Toys",), price=2.0, image="broken.jpg"),
]


def jpeg(kind: str, size: tuple[int, int] = (320, 240)) -> bytes:
    stream = io.BytesIO()
    drawn(kind, size).save(stream, "JPEG")
    return stream.getvalue()


def shop_settings(folder: Path, **settings: Any) -> Settings:
    pictures = folder / "pictures"
    if not pictures.exists():
        pictures.mkdir(parents=True)
        for name, kind, size in (
            ("ball", "ball", (320, 240)), ("ball-2", "ball", (200, 220)), ("grid", "grid", (300, 300)),
            ("box", "box", (300, 200)),
        ):  # fmt: skip
            (pictures / f"{name}.jpg").write_bytes(jpeg(kind, size))
        (pictures / "broken.jpg").write_bytes(jpeg("ball")[:500])
        (folder / "secret.jpg").write_bytes(jpeg("ball"))
        (folder / "data").mkdir()
        (folder / "data" / "encoders").symlink_to(packaged_encoders())
    return load_settings(
        **{
            "data_dir": folder / "data",
            "image_dir": str(pictures),
            "image_encoder": "efficientnet-lite0",
            "text_encoder": "use-multilingual",
            "max_image_bytes": LIMIT,
            "deadline_ms": 60_000,
            **settings,
        }
    )


def environment(settings: Settings) -> dict[str, str]:
    """As ``endcap photos`` is told of a shop."""
    names = ("data_dir", "image_dir", "image_encoder", "text_encoder", "engine_url", "index")
    return {f"ENDCAP_{name.upper()}": str(getattr(settings, name)) for name in names}


@pytest.fixture(scope="module", params=["embedded", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    where = {"engine_url": request.getfixturevalue("elasticsearch")} if request.param == "elasticsearch" else {}
    with shelf() as host:
        folder = tmp_path_factory.mktemp("shop")
        settings = shop_settings(folder, index=f"photo-{uuid.uuid4().hex[:8]}", image_hosts=[host], **where)
        opened = open_runtime(settings)
        try:
            index_products(PRODUCTS, opened.engine, opened.encoder)
            client = create_app(opened).test_client()
            # before anything was indexed
            detail = refused(upload(client, jpeg("ball")), 409, "no_photos")
            assert "endcap photos" in detail
            first = CliRunner().invoke(photos, env=environment(settings))
            assert first.exit_code == 0, first.output
            assert "5 pictures encoded, 0 unchanged, 2 could not be had; 1 of 8 products have none" in first.output
            assert "lost: the image ../secret.jpg lies outside image_dir" in first.output
            again = CliRunner().invoke(photos, env=environment(settings))
            assert "0 pictures encoded, 5 unchanged" in again.output
            opened.engine.delete(["gone"])
            opened.engine.refresh()
            yield opened
        finally:
            opened.close()


def upload(client: FlaskClient, data: bytes, name: str = "photo.jpg", **form: Any) -> Any:
    return client.post("/v1/search", data={"image": (io.BytesIO(data), name), **form})


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.get_json()["hits"]]


def test_an_upload_finds_what_looks_like_it(client: FlaskClient) -> None:
    answer = upload(client, jpeg("ball", (500, 400)))
    assert ids(answer)[0] == "ball"
    assert ids(answer)[1] == "ball-2"
    assert set(ids(answer)) == {"ball", "ball-2", "grid", "box"}  # neither the deleted nor those without a picture
    body = answer.get_json()
    assert body["total"] == 4
    assert body["ranking"]["personalized"] is False
    assert [hit["score"] for hit in body["hits"]] == sorted((hit["score"] for hit in body["hits"]), reverse=True)
    assert ids(upload(client, jpeg("grid")))[0] == "grid"
    assert ids(upload(client, jpeg("ball"), page=2, size=3)) == ids(answer)[3:]


def test_filters_and_facets_are_those_of_a_search(client: FlaskClient) -> None:
    answer = upload(client, jpeg("ball"), facets="brand,category", brand="Acme")
    assert set(ids(answer)) == {"ball", "grid", "box"}
    assert answer.get_json()["facets"]["brand"] == [{"value": "Acme", "count": 3}]


def test_words_beside_a_photo(client: FlaskClient) -> None:
    assert ids(upload(client, jpeg("ball"), q="large ball"))[0] == "ball-2"
    assert "text" in ids(upload(client, jpeg("ball"), q="ball"))  # the words found it, though it has no picture


def test_a_photo_as_base64_and_by_its_address(client: FlaskClient, runtime: Runtime) -> None:
    encoded = base64.b64encode(jpeg("grid")).decode()
    assert ids(client.post("/v1/search", json={"image": encoded, "size": 1})) == ["grid"]
    host = runtime.settings.image_hosts[0]
    assert len(ids(client.post("/v1/search", json={"image_url": f"http://{host}/red.png"}))) == 4
    refused(client.post("/v1/search", json={"image_url": "http://169.254.169.254/x"}), 400, "invalid_input")
    refused(client.post("/v1/search", json={"image_url": f"http://{host}/moved"}), 502, "image_unavailable")
    refused(client.post("/v1/search", json={"image_url": "file:///etc/passwd"}), 400, "invalid_input")
    refused(client.post("/v1/search", json={"image_url": "http://x/", "image": encoded}), 400, "invalid_input")
    refused(client.post("/v1/search", json={"image": "no base64!"}), 400, "invalid_input")
    refused(client.post("/v1/search", json={"image": 5}), 400, "invalid_input")
    refused(client.post("/v1/search", json={"image": encoded, "colour": "red"}), 400, "invalid_input")
    large = base64.b64encode(bytes(LIMIT + 1)).decode()
    refused(client.post("/v1/search", json={"image": large}), 413, "too_large")


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (b"", 422, "invalid_image"),
        (b"no image", 422, "invalid_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "invalid_image"),
        (jpeg("ball")[:700], 422, "invalid_image"),
        (png_header(8_000, 6_250), 422, "invalid_image"),
        (png_header(60_000, 60_000, bytes(1_000_000)), 422, "invalid_image"),
        (bytes(LIMIT + 1), 413, "too_large"),
        (bytes(2 * LIMIT), 413, "too_large"),
    ],
    ids=["empty", "text", "svg", "cut off", "50 megapixels", "bomb", "large", "very large"],
)
def test_what_is_no_picture_is_refused(client: FlaskClient, data: bytes, status: int, kind: str) -> None:
    assert refused(upload(client, data), status, kind)


def test_what_is_no_upload_is_refused(client: FlaskClient) -> None:
    assert "part `image`" in refused(
        client.post("/v1/search", data={"q": "a"}, content_type="multipart/form-data"), 400, "invalid_input"
    )
    bare = client.post("/v1/search", data=jpeg("ball"), content_type="image/jpeg")
    assert bare.status_code == 415
    refused(upload(client, jpeg("ball"), sort="price:asc"), 400, "invalid_input")
    refused(upload(client, jpeg("ball"), page="x"), 400, "invalid_input")


def test_words_about_what_pictures_show(client: FlaskClient) -> None:
    found = ids(client.get("/v1/search", query_string={"q": "fence of wire", "by": "image"}))
    assert set(found) == {"ball", "ball-2", "grid", "box"}
    refused(client.get("/v1/search", query_string={"by": "image"}), 400, "invalid_input")
    refused(client.get("/v1/search", query_string={"q": "a", "by": "smell"}), 400, "invalid_input")


def test_a_clip_model_in_a_folder(tmp_path: Path) -> None:
    """Through sentence-transformers, from `endcap photos` to an answer. Random weights know one picture from another,
    not what is alike."""
    chosen = {"image_encoder": str(small_clip(tmp_path)), "text_encoder": "none"}
    settings = shop_settings(tmp_path / "shop", **chosen)
    opened = open_runtime(settings, start=False)
    try:
        index_products(PRODUCTS[:4], opened.engine, None)
        ran = CliRunner().invoke(photos, env=environment(settings))
        assert "4 pictures encoded" in ran.output
        client = create_app(opened).test_client()
        for product in ("grid", "box"):
            name = next(one.image for one in PRODUCTS if one.id == product)
            picture = (Path(settings.image_dir) / str(name)).read_bytes()
            assert ids(upload(client, picture))[0] == product
        shown = client.get("/v1/search", query_string={"q": "a ball", "by": "image"})
        assert set(ids(shown)) == {"ball", "ball-2", "grid", "box"}
    finally:
        opened.close()


def test_another_encoder_is_refused_with_the_command(tmp_path: Path) -> None:
    settings = shop_settings(tmp_path, text_encoder="none")
    opened = open_runtime(settings, start=False)
    try:
        index_products(PRODUCTS[:2], opened.engine, None)
        assert CliRunner().invoke(photos, env=environment(settings)).exit_code == 0
        client = create_app(opened).test_client()
        assert ids(upload(client, jpeg("ball"))) == ["ball", "ball-2"]
        detail = refused(client.get("/v1/search", query_string={"q": "ball", "by": "image"}), 409, "no_photos")
        assert "text_encoder" in detail
    finally:
        opened.close()
    changed = open_runtime(shop_settings(tmp_path, text_encoder="use-multilingual"), start=False)
    try:
        answer = upload(create_app(changed).test_client(), jpeg("ball"))
        assert "run `endcap photos` again" in refused(answer, 409, "no_photos")
    finally:
        changed.close()


def test_slow_pictures_leave_the_server_to_other_searches(tmp_path: Path) -> None:
    """Two hosts' pictures are awaited, no third: it is refused at once, and searches by words go on."""
    arrived, give = threading.Semaphore(0), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.release()
            give.wait(60)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(jpeg("ball"))

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with serving(Slow) as host, ThreadPoolExecutor(2) as pool:
        settings = shop_settings(tmp_path, text_encoder="none", photo_searches=2, image_hosts=[host])
        opened = open_runtime(settings, start=False)
        try:
            index_products(PRODUCTS[:2], opened.engine, None)
            assert CliRunner().invoke(photos, env=environment(settings)).exit_code == 0
            app = create_app(opened)
            body = {"image_url": f"http://{host}/a.jpg"}
            waiting = [pool.submit(lambda: app.test_client().post("/v1/search", json=body)) for _ in range(2)]
            assert all(arrived.acquire(timeout=60) for _ in waiting)
            client = app.test_client()
            for more in (client.post("/v1/search", json=body), upload(client, jpeg("ball"))):
                assert "photo_searches" in refused(more, 503, "photos_busy")
                assert more.headers["Retry-After"] == "1"
            assert set(ids(client.get("/v1/search?q=ball"))) == {"ball", "ball-2"}
            give.set()
            assert [ids(one.result(60)) for one in waiting] == [["ball", "ball-2"]] * 2
            assert ids(upload(client, jpeg("ball"))) == ["ball", "ball-2"]
            assert client.post("/v1/search", json={"image_url": f"http://{host}:1/"}).status_code == 400
            assert ids(upload(client, jpeg("ball"))) == ["ball", "ball-2"]  # a refusal gave its place back
        finally:
            give.set()
            opened.close()


def test_few_threads_keep_half_for_words(tmp_path: Path) -> None:
    slots = PhotoSlots(load_settings(data_dir=tmp_path, server_threads=3, photo_searches=8))
    with slots.one():
        with pytest.raises(PhotosBusy, match="1 searches by photo"), slots.one():
            pass
    with slots.one():
        pass


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    settings = shop_settings(tmp_path, text_encoder="none")
    none = CliRunner().invoke(photos, env={**environment(settings), "ENDCAP_IMAGE_ENCODER": "none"})
    assert none.exit_code == 2
    assert "--encoder" in none.output
