"""What comes from outside as a picture: read in bounds, fetched from where it may be, indexed once."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from endcap.catalog.product import Product
from endcap.errors import InvalidInput
from endcap.images import fetching
from endcap.images.errors import ImageUnavailable, InvalidImage, NoPhotos
from endcap.images.fetching import Fetcher
from endcap.images.index import Photos, PhotoSearch, PhotoSummary, index_photos
from endcap.images.reading import SIDE, read_image
from tests.photo_support import Colours, picture


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG of that size, in grey, whose pixels unfold from ``body``."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


class TestReading:
    @pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
    def test_formats_of_shops_and_phones(self, format_: str) -> None:
        read = read_image(picture("red", format_, (300, 200)))
        assert (read.mode, read.size) == ("RGB", (300, 200))
        assert read.getpixel((150, 100))[0] > 200

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "empty"),
            (b"no image at all", "no image that can be read"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "no image that can be read"),
            (b"%PDF-1.7 ...", "no image that can be read"),
            (picture("red", "TIFF"), "no image that can be read"),
            (picture("red", "JPEG", (400, 400))[:900], "no image that can be read"),
            (picture("red", "PNG", (400, 400))[:-60], "no image that can be read"),
            (picture("red", "PNG", (4, 400)), "too small"),
            (picture("red", "PNG", (8, 4_000)), "too narrow"),
            (png_header(8_000, 6_250), "50|8,000 × 6,250 pixels; at most 40 million"),
            (png_header(60_000, 60_000, bytes(1_000_000)), "too many pixels|at most 40 million"),
            (png_header(100, 100, b"\0"), "no image that can be read"),
        ],
        ids=[
            "empty",
            "text",
            "svg",
            "pdf",
            "tiff",
            "jpeg cut off",
            "png cut off",
            "small",
            "narrow",
            "50 megapixels",
            "bomb",
            "hollow",
        ],
    )
    def test_anything_else_is_refused_with_its_reason(self, data: bytes, reason: str) -> None:
        with pytest.raises(InvalidImage, match=reason):
            read_image(data)

    def test_any_broken_byte_is_a_picture_or_a_reason(self) -> None:
        random = np.random.default_rng(1)
        whole = {kind: picture("red", kind, (60, 40)) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")}
        for kind, data in whole.items():
            for _ in range(60):
                broken = bytearray(data)
                for place in random.integers(0, len(data), 4):
                    broken[place] = random.integers(256)
                try:
                    assert read_image(bytes(broken)).mode == "RGB", kind
                except InvalidImage:
                    pass

    def test_a_phone_held_upright(self) -> None:
        lying = Image.new("RGB", (80, 40), "blue")
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by a quarter
        stream = io.BytesIO()
        lying.save(stream, "JPEG", exif=exif)
        assert read_image(stream.getvalue()).size == (40, 80)

    def test_a_large_photo_is_made_smaller(self) -> None:
        for format_ in ("JPEG", "PNG"):
            read = read_image(picture("green", format_, (4_000, 3_000)))
            assert SIDE <= min(read.size) < 2 * SIDE

    def test_transparency_is_white_and_sixteen_bits_are_grey(self) -> None:
        assert read_image(picture((255, 0, 0, 0), "PNG", mode="RGBA")).getpixel((5, 5)) == (255, 255, 255)
        stream = io.BytesIO()
        Image.fromarray(np.full((20, 20), 32_768, dtype=np.uint16)).save(stream, "PNG")
        assert abs(read_image(stream.getvalue()).getpixel((5, 5))[0] - 128) <= 1


class Shelf(BaseHTTPRequestHandler):
    """Gives a picture, a redirect, too much, or nothing."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/red.png")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/red.png"):
            self._give(picture("red"))
        elif self.path == "/huge":
            self._give(bytes(200_000))
        else:
            self.send_error(404)

    def _give(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def shelf() -> Iterator[str]:
    Shelf.asked.clear()
    with serving(Shelf) as host:
        yield host


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """``host:port`` of a server with that handler."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class TestFetching:
    def test_only_named_hosts_and_no_redirect(self) -> None:
        with shelf() as host:
            fetcher = Fetcher([host.upper()], max_bytes=100_000)
            for _ in range(3):
                assert fetcher.url(f"http://{host}/red.png?size=1") == picture("red")
            with pytest.raises(ImageUnavailable, match="answered 302"):
                fetcher.url(f"http://{host}/moved")
            with pytest.raises(ImageUnavailable, match="answered 404"):
                fetcher.url(f"http://{host}/none")
            for _ in range(10):  # more than the pool holds: what was not read blocks nobody
                with pytest.raises(InvalidImage, match="more than 100,000 bytes"):
                    fetcher.url(f"http://{host}/huge")
            assert fetcher.url(f"http://{host}/red.png") == picture("red")
            before = len(Shelf.asked)
            for other in (
                f"http://localhost:{host.partition(':')[2]}/red.png",
                "http://127.0.0.1/red.png",
                "http://169.254.169.254/latest/meta-data/",
                f"http://user:secret@{host}/red.png",
                f"http://evil.example\\@{host}/red.png",
                f"http://{host}@evil.example/red.png",
                f"ftp://{host}/red.png",
                "file:///etc/passwd",
                "http://[::1",
                "",
                "http://",
            ):
                with pytest.raises(InvalidInput):
                    fetcher.url(other)
            assert len(Shelf.asked) == before

    def test_a_host_that_trickles_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A byte now and then keeps every single read within its timeout, so the whole must have one, too."""
        monkeypatch.setattr(fetching, "_PATIENCE_S", 0.1)
        sent = 0

        class Trickling(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                nonlocal sent
                self.send_response(200)
                self.send_header("Content-Length", "2000")
                self.end_headers()
                try:
                    for sent in range(2_000):  # noqa: B007
                        self.wfile.write(b"x")
                        self.wfile.flush()
                        time.sleep(0.005)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                """Quiet."""

        with serving(Trickling) as host, pytest.raises(ImageUnavailable, match="takes too long"):
            Fetcher([host]).url(f"http://{host}/a.png")
        assert sent < 1_999

    def test_a_host_that_is_not_there(self) -> None:
        with pytest.raises(ImageUnavailable, match="does not give the image"):
            Fetcher(["127.0.0.1:9"]).url("http://127.0.0.1:9/a.png")

    @pytest.mark.parametrize("path", ["../secret.png", "/../secret.png", "a/../../secret.png", "link.png", "a\0b"])
    def test_no_path_leads_out_of_the_folder(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "secret.png").write_bytes(b"secret")
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "link.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(InvalidInput):
            Fetcher([], str(tmp_path / "shop")).product(path)

    def test_a_file_that_is_not_there_and_no_folder_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ImageUnavailable, match="cannot be read"):
            Fetcher([], str(tmp_path)).product("none.png")
        with pytest.raises(ImageUnavailable, match="cannot be read"):
            Fetcher([], str(tmp_path)).product("/")
        with pytest.raises(InvalidInput, match="image_dir"):
            Fetcher([]).product("none.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for colour in ("red", "green", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    return tmp_path


def shop(*colours: str) -> list[Product]:
    return [Product(id=one, title=one, image=f"{one}.png" if one != "plain" else "") for one in colours]


class TestIndexing:
    def test_encodes_what_is_new_or_changed_and_drops_what_is_gone(self, pictures: Path) -> None:
        encoder, fetcher, file = Colours(), Fetcher([], str(pictures)), pictures / "photos.npz"
        seen: list[int] = []
        made = index_photos(
            shop("red", "green", "plain", "missing"), encoder, fetcher, file, lambda summary: seen.append(summary.read)
        )
        assert (made.encoded, made.unchanged, made.failed, made.without, made.read) == (2, 0, 1, 1, 4)
        assert made.refused[0][0] == "missing"
        assert seen == sorted(seen)
        assert seen[-1] == 4
        again = index_photos(shop("green", "blue"), encoder, fetcher, file)
        assert (again.encoded, again.unchanged) == (1, 1)
        found = Photos.load(file)
        assert found is not None
        assert sorted(found.ids) == ["blue", "green"]
        (pictures / "green.png").write_bytes(picture("red", size=(90, 90)))
        assert index_photos(shop("green", "blue"), encoder, fetcher, file).encoded == 1
        other = index_photos(shop("green", "blue"), Colours("another"), fetcher, file)
        assert (other.encoded, other.unchanged) == (2, 0)

    def test_a_run_that_broke_off_goes_on(self, pictures: Path) -> None:
        fetcher, file = Fetcher([], str(pictures)), pictures / "photos.npz"
        many = [Product(id=str(n), title="a", image="red.png") for n in range(40)]

        def stop(summary: PhotoSummary) -> None:
            if summary.read == 36:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index_photos(many, Colours(), fetcher, file, stop)
        made = index_photos(many, Colours(), fetcher, file)
        assert (made.unchanged, made.encoded) == (32, 8)

    def test_where_nothing_can_be_read_the_index_stays(self, pictures: Path) -> None:
        file = pictures / "photos.npz"
        index_photos(shop("red"), Colours(), Fetcher([], str(pictures)), file)
        with pytest.raises(InvalidInput, match="no picture could be read"):
            index_photos(shop("red"), Colours(), Fetcher([]), file)
        assert Photos.load(file) is not None

    def test_searches_by_likeness_and_says_why_it_cannot(self, pictures: Path) -> None:
        file = pictures / "photos.npz"
        search = PhotoSearch(file, Colours)
        with pytest.raises(NoPhotos, match="endcap photos"):
            search.nearest(picture("red"), 2)
        index_photos(shop("red", "green", "blue"), Colours(), Fetcher([], str(pictures)), file)
        assert search.nearest(picture("green", "JPEG"), 2).ids[0] == "green"
        assert search.by_words("blue", 9).ids[0] == "blue"
        # half red, half green: the words decide
        assert search.nearest(picture((120, 120, 0)), 1, "red").ids == ["red"]
        assert search.nearest(picture((120, 120, 0)), 1, "green").ids == ["green"]
        with pytest.raises(NoPhotos, match="no words"):
            search.by_words("nothing", 3)
        index_photos(shop("red"), Colours("newer"), Fetcher([], str(pictures)), file)
        with pytest.raises(NoPhotos, match=r"another encoder.*endcap photos"):
            search.nearest(picture("red"), 2)
        file.write_bytes(file.read_bytes()[:-40])
        with pytest.raises(NoPhotos, match=r"cannot be read.*endcap photos"):
            search.nearest(picture("red"), 2)
        index_photos(shop("red"), Colours(), Fetcher([], str(pictures)), file)
        with pytest.raises(NoPhotos, match="not at hand"):
            PhotoSearch(file, lambda: None).nearest(picture("red"), 2)

    def test_warms_up_once_pictures_are_there_and_reports_what_is_wrong(self, pictures: Path) -> None:
        file, opened = pictures / "photos.npz", []
        search = PhotoSearch(file, lambda: opened.append(1) or Colours())  # type: ignore[func-returns-value]
        assert search.turn() > 0
        assert opened == []
        index_photos(shop("red"), Colours(), Fetcher([], str(pictures)), file)
        assert search.turn() > 0
        assert search.turn() > 0
        assert opened == [1]
        index_photos(shop("red"), Colours("newer"), Fetcher([], str(pictures)), file)
        with pytest.raises(NoPhotos, match="endcap photos"):
            search.turn()
