"""A network of the shop's own in its folder: whole or refused, replaced in one step, noticed by a running search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from endcap.encoders import open_text_encoder
from endcap.errors import ConfigurationError
from endcap.images.encoder import image_encoder_at_hand
from endcap.images.errors import NoPhotos
from endcap.images.fetching import Fetcher
from endcap.images.index import PhotoSearch, index_photos
from endcap.images.lite import square
from endcap.images.tuned import DESCRIPTION, TunedEncoder, write_encoder
from endcap.settings import Settings
from tests.photo_support import drawn, picture, small_graph
from tests.plugin.test_images import shop

WORDS = {"side": 32, "words": ["red apple", "green pear"]}


def opened(folder: Path) -> TunedEncoder:
    found = image_encoder_at_hand(Settings(data_dir=folder, image_encoder=str(folder)), None)
    assert isinstance(found, TunedEncoder)
    return found


def graphs(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix == ".onnx")


class TestFolder:
    def test_a_setting_names_the_folder_and_another_network_has_another_id(self, tmp_path: Path) -> None:
        first = write_encoder(tmp_path / "own", small_graph(2), WORDS)
        assert opened(tmp_path / "own").id == first.id
        assert write_encoder(tmp_path / "copy", small_graph(2), WORDS).id == first.id
        others = [
            write_encoder(tmp_path / "own", small_graph(2, seed=1), WORDS),
            write_encoder(tmp_path / "own", small_graph(2), {**WORDS, "words": ["red apple", "pear"]}),
        ]
        assert len({first.id, *(one.id for one in others)}) == 3

    def test_the_graph_before_stays_for_whoever_is_opening_it(self, tmp_path: Path) -> None:
        for seed in range(4):
            write_encoder(tmp_path, small_graph(2, seed), WORDS)
            assert len(graphs(tmp_path)) == min(seed + 1, 2)
        before, again = graphs(tmp_path), write_encoder(tmp_path, small_graph(2, 3), WORDS)
        assert opened(tmp_path).id == again.id
        assert again.description["model"] in before

    @pytest.mark.parametrize(
        ("harm", "reason"),
        [
            (lambda folder: (folder / DESCRIPTION).unlink(), "missing"),
            (lambda folder: (folder / DESCRIPTION).write_bytes(b'{"side": 3'), "holds no whole network"),
            (lambda folder: (folder / DESCRIPTION).write_bytes(b"[]"), "holds no whole network"),
            (lambda folder: (folder / DESCRIPTION).write_bytes(b"{}"), "holds no whole network"),
            (lambda folder: (folder / graphs(folder)[0]).unlink(), "missing"),
            (lambda folder: (folder / graphs(folder)[0]).write_bytes(small_graph(2)[:200]), "half written, or changed"),
            (lambda folder: (folder / graphs(folder)[0]).write_bytes(small_graph(2, 7)), "half written, or changed"),
            (lambda folder: changed(folder, words=["one"]), "knows 2 labels, the description 1"),
            (lambda folder: changed(folder, side=64), "holds no whole network"),
            (lambda folder: changed(folder, format=99), "another format"),
        ],
        ids=["no description", "cut off", "a list", "empty", "no graph", "half a graph", "another graph", "labels",
             "side", "format"],
    )  # fmt: skip
    def test_anything_but_a_whole_one_is_refused_with_what_to_do(
        self, tmp_path: Path, harm: Callable[[Path], object], reason: str
    ) -> None:
        write_encoder(tmp_path, small_graph(2), WORDS)
        harm(tmp_path)
        with pytest.raises(ConfigurationError, match=reason) as refused:
            opened(tmp_path)
        assert "endcap train-photos" in str(refused.value)
        again = write_encoder(tmp_path, small_graph(2, 3), WORDS)
        assert opened(tmp_path).id == again.id

    def test_no_server_would_take_it_so_it_is_not_written(self, tmp_path: Path) -> None:
        whole = write_encoder(tmp_path, small_graph(2), WORDS)
        for graph, said in ((b"no graph", WORDS), (small_graph(3), WORDS), (small_graph(2), {"side": 32})):
            with pytest.raises(ConfigurationError):
                write_encoder(tmp_path, graph, said)
        assert opened(tmp_path).id == whole.id
        assert len(graphs(tmp_path)) == 1
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(ConfigurationError, match="could not be written"):
            write_encoder(tmp_path / "file", small_graph(2), WORDS)

    def test_a_full_disk_leaves_what_was_there(self, tmp_path: Path) -> None:
        """A limit on the size of files stands for the full disk: the kernel refuses the write half way."""
        whole = write_encoder(tmp_path / "own", small_graph(2), WORDS)
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from endcap.errors import ConfigurationError\n"
            "from endcap.images.tuned import write_encoder\n"
            "from tests.photo_support import small_graph\n"
            "graph = small_graph(2, seed=5)\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
            "try:\n"
            "    write_encoder(Path(sys.argv[1]), graph, {'side': 32, 'words': ['a', 'b']})\n"
            "except ConfigurationError as refusal:\n"
            "    print(refusal)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "own")],
            capture_output=True, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert "could not be written" in ran.stdout, ran.stderr
        assert opened(tmp_path / "own").id == whole.id
        assert len(list((tmp_path / "own").iterdir())) == 2


def changed(folder: Path, **values: object) -> None:
    said = orjson.loads((folder / DESCRIPTION).read_bytes())
    (folder / DESCRIPTION).write_bytes(orjson.dumps({**said, **values}))


def test_a_running_search_takes_the_network_that_the_pictures_were_indexed_by(tmp_path: Path) -> None:
    for colour in ("red", "green", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    file, own, fetcher = tmp_path / "photos.npz", tmp_path / "own", Fetcher([], str(tmp_path))
    search = PhotoSearch(file, lambda: opened(own))
    write_encoder(own, small_graph(2), WORDS)
    index_photos(shop("red", "green"), opened(own), fetcher, file)
    assert search.nearest(picture("green"), 1).ids == ["green"]
    write_encoder(own, small_graph(2, seed=1), WORDS)
    assert search.nearest(picture("green"), 1).ids == ["green"], "what it has fits the index"
    with pytest.raises(NoPhotos, match=r"another encoder.*endcap photos"):
        PhotoSearch(file, lambda: opened(own)).nearest(picture("green"), 1)
    made = index_photos(shop("red", "green", "blue"), opened(own), fetcher, file)
    assert made.encoded == 3
    assert search.nearest(picture("blue"), 1).ids == ["blue"]


def test_it_serves_without_torch(tmp_path: Path) -> None:
    write_encoder(tmp_path, small_graph(2), WORDS)
    code = (
        "import sys; sys.modules.update(torch=None, sentence_transformers=None, efficientnet_lite_pytorch=None)\n"
        "from endcap.images.encoder import open_image_encoder\n"
        "from endcap.settings import Settings\n"
        "from PIL import Image\n"
        f"encoder = open_image_encoder(Settings(data_dir={str(tmp_path)!r}, image_encoder={str(tmp_path)!r}), None)\n"
        "print(encoder.encode([Image.new('RGB', (50, 40), 'red')]).shape)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "(1, 3)", ran.stderr


def test_words_are_those_of_the_labels(tmp_path: Path) -> None:
    text = open_text_encoder(Settings(data_dir=tmp_path, text_encoder="use-multilingual"))
    assert text is not None
    write_encoder(tmp_path, small_graph(2), WORDS)
    encoder = TunedEncoder.open(tmp_path, text)
    assert encoder.id not in (opened(tmp_path).id, text.id), "vectors with words are others"
    (vector,) = encoder.encode([drawn("ball")])
    logits = encoder.look(square(drawn("ball"), encoder.side)[None])[1][0]
    likely, unlikely = (encoder.words[place] for place in (int(logits.argmax()), int(logits.argmin())))
    assert float(vector @ encoder.encode_text(likely)) > float(vector @ encoder.encode_text(unlikely))
