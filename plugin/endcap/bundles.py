"""Bundles: a model version as a folder, whole or not there, checked before it may go live.

::

    interest-20261125093000/
        bundle.json      what it is: specification, metrics, data window, seed, library versions, checksums
        model.onnx       the graph
        vocabulary.json  product ids and code values
        affinity.npz     who goes with what (:mod:`endcap.features.affinity`); not every model has one
        weights.safetensors  what training can go on from; servers do not read it

Nothing in it is executable, and nothing is ever unpickled. ``live.json`` beside the bundles names the one in force.
"""

from __future__ import annotations

import hashlib
import math
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson

from endcap.errors import BundleRefused
from endcap.events import Action
from endcap.features.affinity import Affinity
from endcap.files import sync_folder, write_atomically, write_through
from endcap.interest import Calibration
from endcap.sequences import INPUTS, OUTPUT, UNKNOWN, InputSpec, Vocabulary

FORMAT = 1
DESCRIPTION, MODEL, VOCABULARY, LIVE = "bundle.json", "model.onnx", "vocabulary.json", "live.json"
AFFINITY, WEIGHTS = "affinity.npz", "weights.safetensors"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_LIBRARIES = ("endcap", "numpy", "onnx", "onnxruntime", "torch")
_ORT_TYPES = {"int64": "tensor(int64)", "float32": "tensor(float)"}
#: Candidates of the probe: few enough to cost nothing, enough to tell models apart.
_PROBE_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle, ready to score.

    ``probe`` are inputs of B = 1 and ``probe_scores`` what the model says to them (float32 (1, N)): another place that
    serves the same model must say the same. ``affinity`` and ``calibration`` are None where the model has none.
    """

    folder: Path
    name: str
    version: int
    created: str
    spec: InputSpec
    vocabulary: Vocabulary = field(repr=False)
    session: onnxruntime.InferenceSession = field(repr=False)
    probe: dict[str, np.ndarray] = field(repr=False)
    probe_scores: np.ndarray = field(repr=False)
    description: dict[str, Any] = field(repr=False)
    affinity: Affinity | None = field(default=None, repr=False)
    calibration: Calibration | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """What it says of how it was made."""
        return {key: value for key, value in self.description.items() if key not in ("metrics", "files")}

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all its files, the description last."""
        return (*self.description["files"], DESCRIPTION)

    @property
    def label(self) -> str:
        """Name and version, as it stands in answers and logs."""
        return f"{self.name}-{self.version}"

    @property
    def augmentation(self) -> Mapping[str, Any]:
        """The generator in the graph that speaks for products without history (name, version, seed, what it was chosen
        by); empty where it has none."""
        return self.description.get("augmentation") or {}

    @property
    def newcomer(self) -> int:
        """The number of a product that training never saw: the generator's, where the graph has one."""
        return self.vocabulary.numbers if self.augmentation else UNKNOWN

    @property
    def served_name(self) -> str:
        """What the model is called in Triton. Versions of one specification share it, others never do: servers of two
        releases can use one Triton."""
        return f"{self.name}-{self.spec.digest[:8]}"


def write_bundle(
    parent: Path,
    model: bytes,
    spec: InputSpec,
    vocabulary: Vocabulary,
    *,
    name: str = "interest",
    version: int | None = None,
    metrics: Mapping[str, float] | None = None,
    data_window: Mapping[str, Any] | None = None,
    seed: int | None = None,
    extra: Mapping[str, Any] | None = None,
    affinity: Affinity | None = None,
    calibration: Calibration | None = None,
    weights: bytes | None = None,
) -> Path:
    """Write ``parent/name-version`` in one step and return it.

    The bundle is loaded as a server would before it gets its name, so one that this version refuses is never seen.

    Args:
        version: a positive number, greater than that of older ones; None: the UTC time as YYYYMMDDhhmmss.
        metrics: of the validation. data_window: what it was trained on, plain JSON. extra: any other provenance.
        weights: a safetensors file, for training to go on from.

    Raises:
        BundleRefused: a server would refuse it, it is there already, or the disk did; nothing is left behind.
    """
    if version is None:
        version = int(time.strftime("%Y%m%d%H%M%S", time.gmtime()))
        while (parent / f"{name}-{version}").exists():  # two within a second: numbers only have to grow
            version += 1
    if not _NAME.fullmatch(name) or version < 1:
        raise BundleRefused(f"bundle {name!r}, version {version}: lower-case letters, digits, _ and -; at least 1")
    target = parent / f"{name}-{version}"
    if target.exists():
        raise BundleRefused(f"{target} is there already: choose another version")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
    except OSError as error:
        raise BundleRefused(f"{target} could not be written: {error}") from error
    try:
        files = {MODEL: model, VOCABULARY: orjson.dumps(vocabulary.to_json())}
        if affinity is not None:
            files[AFFINITY] = affinity.to_bytes()
        if weights is not None:
            files[WEIGHTS] = weights
        description = {
            "format": FORMAT,
            "name": name,
            "version": version,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "specification": spec.to_json(),
            "specification_digest": spec.digest,
            "tensors": {tensor: [INPUTS[tensor], list(spec.shape(tensor))] for tensor in spec.inputs},
            "metrics": {key: _number(value) for key, value in (metrics or {}).items()},
            "data_window": dict(data_window or {}),
            "seed": seed,
            "libraries": _libraries(),
            "calibration": asdict(calibration) if calibration else None,
            **(extra or {}),
            "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        }
        files[DESCRIPTION] = orjson.dumps(description, option=orjson.OPT_INDENT_2)
        for file, content in files.items():
            write_through(scratch / file, content)
        load_bundle(scratch)
        scratch.chmod(0o755)
        scratch.rename(target)
        sync_folder(parent)
    except OSError as error:
        raise BundleRefused(f"{target} could not be written: {error}; nothing was left behind") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def inputs_of(model: bytes) -> tuple[str, ...]:
    """Names of the tensors that a graph takes, for :attr:`InputSpec.inputs`: an export drops what it does not read.

    Raises:
        BundleRefused: it is no graph.
    """
    taken = {one.name for one in _open(model).get_inputs()}
    return tuple(name for name in INPUTS if name in taken)


def load_bundle(folder: Path, encoder_id: str | None = None) -> Bundle:
    """A bundle, checked: its files, its specification, and what the model says to a probe.

    Args:
        encoder_id: of the server's text encoder, empty where it has none; None: any will do.

    Raises:
        BundleRefused: naming the bundle and the reason.
    """
    try:
        return _load(folder, encoder_id)
    except BundleRefused as refusal:
        raise BundleRefused(f"bundle {folder.name}: {refusal}") from refusal.__cause__


def _load(folder: Path, encoder_id: str | None) -> Bundle:
    description = _object(_read(folder, DESCRIPTION), DESCRIPTION)
    if description.get("format") != FORMAT:
        raise BundleRefused(f"format {description.get('format')!r}; this version reads format {FORMAT}")
    name, number = description.get("name"), description.get("version")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(number, int) or number < 1:
        raise BundleRefused(f"{DESCRIPTION} has no usable name and version")
    contents = {}
    checksums = description.get("files")
    if not isinstance(checksums, dict):
        raise BundleRefused(f"{DESCRIPTION} names no files")
    for file in dict.fromkeys((MODEL, VOCABULARY, *checksums)):
        # A name only: whoever copies the bundle copies these, and nothing beside or above it.
        if file != Path(file).name or "\0" in file or file in {"", "..", DESCRIPTION}:
            raise BundleRefused(f"{DESCRIPTION} names {file[:100]!r}, which is no file of a bundle")
        contents[file] = _read(folder, file)
        wanted = checksums.get(file)
        if hashlib.sha256(contents[file]).hexdigest() != wanted:
            raise BundleRefused(f"{file} does not match its checksum: half written or changed since")
    try:
        spec = InputSpec.from_json(description["specification"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleRefused(f"its feature specification is not this server's: {error}") from error
    if encoder_id is not None and spec.content and spec.encoder != encoder_id:
        raise BundleRefused(
            f"its content vectors are of {spec.encoder}; this server's encoder is {encoder_id or 'none'}"
        )
    try:
        vocabulary = Vocabulary.from_json(_object(contents[VOCABULARY], VOCABULARY))
    except (ValueError, KeyError, TypeError) as error:
        raise BundleRefused(f"{VOCABULARY}: {error}") from error
    affinity = Affinity.from_bytes(contents[AFFINITY]) if AFFINITY in contents else None
    session = _session(contents[MODEL], spec)
    probe = probe_inputs(spec, vocabulary)
    if description.get("augmentation") and "candidate_products" in probe:
        probe["candidate_products"][0, 1] = vocabulary.numbers
    return Bundle(
        folder, name, number, str(description.get("created", "")), spec, vocabulary, session, probe,
        _probe(session, probe), description, affinity, _calibration(description.get("calibration")),
    )  # fmt: skip


def _calibration(values: object) -> Calibration | None:
    if values is None:
        return None
    try:
        slope, outside = float(values["slope"]), float(values["outside"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError) as error:
        raise BundleRefused(f"its calibration cannot be read: {error!r}") from error
    if not (math.isfinite(slope) and math.isfinite(outside) and slope >= 0):
        raise BundleRefused(f"its calibration is not sane: slope {slope}, outside {outside}")
    return Calibration(slope, outside)


def probe_inputs(spec: InputSpec, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Plausible inputs of one shopper, the same for the same arguments. The largest number and the largest code of each
    column are among them: a vocabulary that is too large for the model shows here, not in a search."""
    draw = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for name in spec.inputs:
        side, _, what = name.partition("_")
        length = spec.places if side == "history" else _PROBE_CANDIDATES
        if what == "products":
            made[name] = draw.integers(1, vocabulary.numbers, (1, length))
            made[name][0, 0] = vocabulary.numbers - 1
        elif what == "actions":
            made[name] = draw.integers(int(Action.VIEW), int(Action.RETURN), (1, length))
        elif what == "ages":
            made[name] = draw.gamma(1.0, 30.0, (1, length)).astype(np.float32)
        elif what == "codes":
            sizes = vocabulary.sizes(spec.codes)
            columns = [draw.integers(0, size, (1, length)) for size in sizes]
            for size, column in zip(sizes, columns, strict=True):
                column[0, 0] = size - 1
            made[name] = np.stack(columns, axis=-1) if columns else np.zeros((1, length, 0), dtype=np.int64)
        else:
            values = draw.normal(size=(1, length, spec.shape(name)[1])).astype(np.float32)
            made[name] = values / max(math.sqrt(spec.content), 1.0) if what == "content" else values
    return made


def live_bundle(models: Path) -> Path | None:
    """Folder of the bundle in force; None where none is.

    Raises:
        BundleRefused: ``live.json`` names no folder beside it.
    """
    try:
        values = _object((models / LIVE).read_bytes(), LIVE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleRefused(f"{models / LIVE} cannot be read: {error}") from error
    name = values.get("bundle")
    # A name only: the pointer must not lead out of the folder.
    if not isinstance(name, str) or name != Path(name).name or name in {"", ".", ".."}:
        raise BundleRefused(f'{models / LIVE} must name a bundle beside it, as {{"bundle": "interest-1"}}')
    return models / name


def make_live(folder: Path) -> None:
    """Put a bundle in force, in one step, for every server that watches the folder it lies in.

    Raises:
        BundleRefused: the pointer could not be written.
    """
    try:
        write_atomically(folder.parent / LIVE, orjson.dumps({"bundle": folder.name}), durable=True)
    except OSError as error:
        raise BundleRefused(f"{folder.parent / LIVE} could not be written: {error}") from error


def make_none_live(models: Path) -> None:
    """Take what is live out of force: servers score without a model.

    Raises:
        BundleRefused: the pointer could not be removed.
    """
    try:
        (models / LIVE).unlink(missing_ok=True)
        sync_folder(models)
    except OSError as error:
        raise BundleRefused(f"{models / LIVE} could not be removed: {error}") from error


def _open(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # A search is one small batch: threads would cost more than they give, and searches run beside one another.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes of its own, all of them plain Exceptions
        raise BundleRefused(f"{MODEL} is no graph that onnxruntime takes: {_first_line(error)}") from error


def _session(model: bytes, spec: InputSpec) -> onnxruntime.InferenceSession:
    session = _open(model)
    takes = {one.name: one.type for one in session.get_inputs()}
    wants = {name: _ORT_TYPES[INPUTS[name]] for name in spec.inputs}
    if takes != wants:
        raise BundleRefused(f"{MODEL} takes {_listed(takes)}; the specification says {_listed(wants)}")
    gives = [one.name for one in session.get_outputs()]
    if gives != [OUTPUT]:
        raise BundleRefused(f"{MODEL} gives {', '.join(gives)} where {OUTPUT} alone is expected")
    return session


def _probe(session: onnxruntime.InferenceSession, probe: dict[str, np.ndarray]) -> np.ndarray:
    try:
        (scores,) = session.run([OUTPUT], probe)
    except Exception as error:
        raise BundleRefused(f"{MODEL} cannot score a plausible search: {_first_line(error)}") from error
    scores = np.asarray(scores)
    if scores.dtype != np.float32 or scores.shape != (1, _PROBE_CANDIDATES):
        raise BundleRefused(f"{MODEL} gives {scores.dtype} {scores.shape}, not float32 (1, {_PROBE_CANDIDATES})")
    if not np.isfinite(scores).all():
        raise BundleRefused(f"{MODEL} gives scores that are not finite to a plausible search")
    return scores


def _read(folder: Path, file: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise BundleRefused(f"{file} cannot be read ({error.strerror or error})") from error


def _object(content: bytes, file: str) -> dict[str, Any]:
    try:
        values = orjson.loads(content)
    except ValueError as error:
        raise BundleRefused(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise BundleRefused(f"{file} is not a JSON object")
    return values


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(tensors.items()))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
