"""From labelled photos to a shop that is searched by photo with a network of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import torch
from click.testing import CliRunner, Result

from endcap.catalog.product import Product
from endcap.commands.photos import photos as index_photos
from endcap.errors import ConfigurationError, InvalidInput, TooLittle
from endcap.images.tuned import DESCRIPTION, TunedEncoder
from endcap.indexing import index_products
from endcap.runtime import open_runtime
from endcap.settings import Settings, load_settings
from endcap_reranker.app import create_app
from endcap_workers.training.photos import tuning
from endcap_workers.training.photos.command import train_photos
from endcap_workers.training.photos.run import Request
from endcap_workers.training.photos.run import train_photos as run
from endcap_workers.training.photos.tuning import Tuning
from tests.photo_support import drawn

KINDS = ("ball", "grid", "box")
SMALL = Tuning(size=0, side=64, judged=64, frozen=17, head_epochs=2, batch=5)


def jpeg(kind: str, size: tuple[int, int] = (320, 240)) -> bytes:
    stream = io.BytesIO()
    drawn(kind, size).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More of them only wait for each other over so little."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos of each kind, and what lies in folders of photos beside them."""
    folder = tmp_path_factory.mktemp("photos")
    for kind in KINDS:
        (folder / kind / "more").mkdir(parents=True)
        for number in range(7):
            (folder / kind / ("more" if number % 2 else "") / f"{number}.jpg").write_bytes(
                jpeg(kind, (200 + 12 * number, 260 - 9 * number))
            )
    (folder / "ball" / ".DS_Store").write_bytes(b"\0")
    (folder / "ball" / "notes.txt").write_text("no picture")
    (folder / "grid" / "[bold]broken.jpg").write_bytes(jpeg("grid")[:500])
    (folder / "box" / "twin.jpg").write_bytes((folder / "box" / "0.jpg").read_bytes())
    (folder / "empty").mkdir()
    return folder


def call(place: Path, data: Path, *options: str, **env: str) -> Result:
    return CliRunner().invoke(train_photos, [str(place), *options], env={"ENDCAP_DATA_DIR": str(data), **env})


def test_a_shop_trains_on_its_photos_and_is_searched_by_photo(photos: Path, tmp_path: Path) -> None:
    shop = [Product(id=kind, title=f"A {kind}", image=f"{kind}.jpg") for kind in KINDS]
    (tmp_path / "pictures").mkdir()
    for kind in KINDS:
        (tmp_path / "pictures" / f"{kind}.jpg").write_bytes(jpeg(kind, (300, 300)))
    given = {"data_dir": tmp_path / "data", "image_dir": str(tmp_path / "pictures"), "text_encoder": "none"}
    env = {f"ENDCAP_{name.upper()}": str(value) for name, value in given.items()}
    own = tmp_path / "own"
    runtime = open_runtime(load_settings(**given, image_encoder=str(own), deadline_ms=60_000), start=False)
    try:
        index_products(shop, runtime.engine, runtime.encoder)
        told = call(photos, tmp_path / "data", "--out", str(own), "--network", "lite0", "--epochs", "1", **env)
        assert told.exit_code == 0, told.output
        assert "24 photos of 3 labels, 3 of them products' own pictures; 3 are held out" in told.output
        for left_out in (
            "ball/notes.txt: no image",
            "grid/[bold]broken.jpg: no image",
            "box/twin.jpg: the same picture as",
        ):
            assert f"left out: {left_out}" in told.output
        assert f"ENDCAP_IMAGE_ENCODER={own} && endcap photos" in told.output
        said = orjson.loads((own / DESCRIPTION).read_bytes())
        assert said["labels"] == sorted(KINDS)
        assert said["words"] == [f"A {kind}" for kind in sorted(KINDS)]
        assert said["photos"]["products"] == 3
        assert said["metrics"]["tuned"]["product@1"] == 1.0
        assert len(said["values"]) == 1
        left = [one.name for one in (tmp_path / "data" / "training" / "photos").iterdir()]
        assert left == [".lock"], "copies and checkpoints are gone"
        indexed = CliRunner().invoke(index_photos, env={**env, "ENDCAP_IMAGE_ENCODER": str(own)})
        assert "3 pictures encoded" in indexed.output
        client = create_app(runtime).test_client()
        for kind in KINDS:
            sent = {"image": (io.BytesIO(jpeg(kind, (280, 220))), "photo.jpg")}
            assert client.post("/v1/search", data=sent).get_json()["hits"][0]["id"] == kind
    finally:
        runtime.close()


def small(
    place: Path, folder: Path, progress: Callable[..., None] = lambda *_: None, lines: list[str] | None = None
) -> TunedEncoder:
    request = Request(place, folder / "own", seed=3, epochs=2, tuning=SMALL)
    report = lines.append if lines is not None else lambda line: None
    return run(Settings(data_dir=folder / "data"), request, folder / "work", progress, report)


def test_a_run_that_was_killed_goes_on_and_gives_the_same(photos: Path, tmp_path: Path) -> None:
    whole = small(photos, tmp_path / "whole").description

    def killed(done: float, total: float, phase: str) -> None:
        if phase == "training" and done == 1:
            with pytest.raises(ConfigurationError, match="another training on photos is at work"):
                small(photos, tmp_path / "broken")
        if phase == "training" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(photos, tmp_path / "broken", killed)
    assert not (tmp_path / "broken" / "own").exists()
    (tmp_path / "broken" / "work" / "copies").mkdir()  # as a kill leaves it
    lines: list[str] = []
    again = small(photos, tmp_path / "broken", lines=lines).description
    assert "goes on with the run before" in lines
    assert again["sha256"] == whole["sha256"]
    assert (again["metrics"], again["values"]) == (whole["metrics"], whole["values"])


class TestBadInput:
    def test_what_is_no_set_of_labelled_photos(self, photos: Path, tmp_path: Path) -> None:
        listed = tmp_path / "list.tsv"
        listed.write_text("a.jpg\tball\n\nb.jpg ball\n")
        with pytest.raises(InvalidInput, match=r"list\.tsv, line 3: a path, a tab and a label"):
            small(listed, tmp_path)
        listed.write_bytes(jpeg("ball"))
        with pytest.raises(InvalidInput, match="no list in UTF-8"):
            small(listed, tmp_path)
        with pytest.raises(InvalidInput, match="no folders"):
            small(photos / "ball" / "more", tmp_path)
        assert not (tmp_path / "own").exists()

    def test_too_few_photos_or_labels(self, photos: Path, tmp_path: Path) -> None:
        listed = tmp_path / "list.tsv"
        lines = [f"{photos}/{kind}/{number}.jpg\t{kind}\tsome {kind}" for kind in KINDS for number in (0, 2, 4, 6)]
        found: list[str] = []
        for some, said in ((lines[:4], "4 photos of 1 labels"), (lines[:8], "8 photos of 2 labels"), ([], "0 photos")):
            listed.write_text("\n".join([*some, f"{tmp_path}/none.jpg\tlost"]))
            with pytest.raises(TooLittle, match=f"{said}.*at least 12 photos of 2 labels"):
                small(listed, tmp_path, lines=found)
        assert f"left out: {tmp_path}/none.jpg: cannot be read: No such file or directory" in found

    def test_a_full_disk_and_a_folder_that_cannot_be_written(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "own").write_text("a file")
        with pytest.raises(ConfigurationError, match="own is no folder"):
            small(photos, tmp_path)
        (tmp_path / "own").unlink()
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "modules.json").write_text("[]")
        with pytest.raises(ConfigurationError, match="own holds something else"):
            small(photos, tmp_path)
        (tmp_path / "own" / "modules.json").unlink()
        (tmp_path / "own").rmdir()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tuning, "write_atomically", full)
        with pytest.raises(ConfigurationError, match=r"work: .*No space left on device"):
            small(photos, tmp_path)
        assert not (tmp_path / "own").exists()

    def test_without_torch_it_says_what_to_install(self, photos: Path, tmp_path: Path) -> None:
        code = "import sys; sys.modules['torch'] = None; from endcap.cli import main; main()"
        command = [sys.executable, "-c", code, "train-photos", str(photos)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert ran.returncode == 1
        assert "torch is missing: pip install 'endcap[images]'" in ran.stderr
