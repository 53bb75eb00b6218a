"""The scorer behind Triton Inference Server: one batched gRPC call a search, in time, behind a circuit breaker."""

from __future__ import annotations

import itertools
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from endcap.bundles import Bundle
from endcap.catalog.table import ProductTable
from endcap.errors import BundleRefused, ConfigurationError, DeadlineExceeded, EndcapError, ScorerUnavailable
from endcap.features import RankingInputs
from endcap.scoring.aligned import Aligned
from endcap.sequences import INPUTS, OUTPUT, model_inputs

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient

#: The call may take this share of the time that is left, so that the next scorer has some, too.
_SHARE = 0.6
_LEAST_S = 0.001
#: Candidates are filled up to a multiple of this: only requests of equal shape share a batch.
_ROUND = 20
#: Seconds for the calls of a check; searches do not wait for it.
_CHECK_S = 2.0
#: A server that serves the same graph on other hardware differs by rounding, not by more than this.
_TOLERANCE = 1e-2

_TYPES = {"int64": "INT64", "float32": "FP32"}
#: Key of the parameter in config.pbtxt that carries the digest of the feature specification.
SPECIFICATION = "endcap_specification"

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
]


class State(str, Enum):
    """Of the circuit to the server: closed lets searches through, open refuses them at once, and while a check finds
    out whether the server is well again it is half open."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitOpen(ScorerUnavailable):
    """The server failed lately and is left alone for a moment."""

    kind = "circuit_open"


class TritonScorer:
    """Scores with the version of the model in Triton that belongs to a bundle. Thread-safe.

    The circuit starts open: :meth:`check` closes it once the server has shown that it serves this bundle's model (its
    specification's digest, its tensors, its scores for the bundle's probe). It opens after ``failures`` failed calls
    in a row; after ``cool_down_s`` the next search starts a check in the background, and falls back meanwhile.
    """

    def __init__(
        self,
        url: str,
        bundle: Bundle,
        aligned: Aligned | None = None,
        channels: int = 2,
        failures: int = 3,
        cool_down_s: float = 1.0,
        timeout_s: float = 5.0,
    ) -> None:
        """
        Args:
            url: host:port of the gRPC endpoint.
            channels: connections to it.
            timeout_s: longest call where the search itself has no deadline.

        Raises:
            ConfigurationError: tritonclient is not installed, or the address is none.
        """
        try:
            import tritonclient.grpc as client
        except ImportError as error:
            raise ConfigurationError("triton_url needs tritonclient: pip install 'endcap[triton]'") from error
        self.name = f"triton:{bundle.label}"
        self.bundle = bundle
        self.calibration = bundle.calibration
        self.reason = "not checked yet"
        self._client = client
        self._aligned = aligned or Aligned(bundle)
        self._model, self._version = bundle.served_name, str(bundle.version)
        self._wanted = [client.InferRequestedOutput(OUTPUT)]
        self._failures, self._cool_down_s, self._timeout_s = failures, cool_down_s, timeout_s
        self._lock = threading.Lock()
        self._failed, self._checked, self._state = 0, -cool_down_s, State.OPEN
        try:
            self._channels: list[InferenceServerClient] = [
                client.InferenceServerClient(url, channel_args=_CHANNEL) for _ in range(channels)
            ]
        except Exception as error:
            raise ConfigurationError(f"triton_url {url!r}: {error}; it takes host:port, without a scheme") from error
        self._turn = itertools.count()

    @property
    def state(self) -> State:
        """Of the circuit."""
        return self._state

    def prepare(self, table: ProductTable) -> None:
        """Get ready for a product table before searches come with it."""
        self._aligned.prepare(table)

    def close(self) -> None:
        """Give the connections back."""
        for one in self._channels:
            one.close()

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """float32 (n,); see :class:`~endcap.scoring.base.Scorer`.

        Raises:
            CircuitOpen, DeadlineExceeded, ScorerUnavailable: it cannot answer now.
        """
        if self._state is not State.CLOSED:
            self.heal()
            raise CircuitOpen(f"{self.name}: {self.reason}")
        count = len(inputs.rows)
        if not count:
            return np.zeros(0, dtype=np.float32)
        tensors = _filled(model_inputs(inputs, self._aligned.of(inputs.table), self.bundle.spec.places), count)
        left = (inputs.until - time.perf_counter()) * _SHARE
        if left < _LEAST_S:
            raise DeadlineExceeded(f"{self.name}: no time left for a call")
        try:
            scores = self._call(tensors, min(left, self._timeout_s))
        except EndcapError as error:
            self._count_failure(str(error))
            raise
        self._failed = 0
        return scores[0, :count]

    def check(self) -> None:
        """Find out whether the server serves this bundle's model; the circuit is closed afterwards, or this raises.

        Raises:
            BundleRefused: it serves another model under this name and version.
            ScorerUnavailable: it cannot be asked, or does not know the model.
        """
        with self._lock:
            self._state = State.HALF_OPEN
        try:
            self._compare()
        except Exception as error:
            reason = str(error) if isinstance(error, EndcapError) else repr(error)
            with self._lock:
                self._state, self.reason, self._checked = State.OPEN, reason, time.monotonic()
            raise
        with self._lock:
            self._state, self.reason, self._failed = State.CLOSED, "", 0

    def heal(self) -> None:
        """Where the circuit is open and has cooled down, start a check in the background."""
        with self._lock:
            if self._state is not State.OPEN or time.monotonic() < self._checked + self._cool_down_s:
                return
            self._state = State.HALF_OPEN
        threading.Thread(target=self._quiet_check, daemon=True, name="endcap-triton-check").start()

    def _quiet_check(self) -> None:
        try:
            self.check()
        except Exception:  # noqa: S110 - check() keeps the reason, and another one follows after the cool-down
            pass

    def _count_failure(self, reason: str) -> None:
        with self._lock:
            self._failed += 1
            if self._failed >= self._failures and self._state is State.CLOSED:
                self._state, self.reason, self._checked = State.OPEN, reason, time.monotonic()

    def _compare(self) -> None:
        config = self._ask("get_model_config").config
        digest = config.parameters[SPECIFICATION].string_value if SPECIFICATION in config.parameters else "none"
        if digest != self.bundle.spec.digest:
            raise BundleRefused(
                f"{self.name}: Triton's {self._model} was published for feature specification {digest}, this server's "
                f"bundle has {self.bundle.spec.digest}; publish the bundle again"
            )
        metadata = self._ask("get_model_metadata")
        takes = {one.name: one.datatype for one in metadata.inputs}
        wants = {name: _TYPES[INPUTS[name]] for name in self.bundle.spec.inputs}
        if takes != wants:
            raise BundleRefused(f"{self.name}: Triton's {self._model} takes {takes}, the bundle's model {wants}")
        scores = self._call(self.bundle.probe, _CHECK_S)
        expected = self.bundle.probe_scores
        if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise BundleRefused(
                f"{self.name}: Triton's {self._model}, version {self._version}, gives other scores than the bundle's "
                "model; publish the bundle again"
            )

    def _ask(self, call: str) -> Any:
        try:
            return getattr(self._next(), call)(self._model, self._version, client_timeout=_CHECK_S)
        except self._client.InferenceServerException as error:
            raise _unavailable(self.name, error) from error

    def _call(self, tensors: dict[str, np.ndarray], timeout_s: float) -> np.ndarray:
        given = []
        for name, tensor in tensors.items():
            one = self._client.InferInput(name, list(tensor.shape), _TYPES[INPUTS[name]])
            one.set_data_from_numpy(tensor)
            given.append(one)
        try:
            answer = self._next().infer(
                self._model, given, model_version=self._version, outputs=self._wanted, client_timeout=timeout_s
            )
        except self._client.InferenceServerException as error:
            raise _unavailable(self.name, error) from error
        scores = answer.as_numpy(OUTPUT)
        if scores is None or scores.shape != tensors_shape(tensors):
            raise ScorerUnavailable(f"{self.name}: scores of shape {None if scores is None else scores.shape}")
        return np.asarray(scores, dtype=np.float32)

    def _next(self) -> InferenceServerClient:
        return self._channels[next(self._turn) % len(self._channels)]


def tensors_shape(tensors: dict[str, np.ndarray]) -> tuple[int, int]:
    """(B, N) of the candidates in a model's inputs."""
    tensor = next(tensor for name, tensor in tensors.items() if name.startswith("candidate"))
    return tensor.shape[0], tensor.shape[1]


def _filled(tensors: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """With candidates behind that are none, so that searches of like size can share a batch: their features are no
    numbers, the rest is 0."""
    behind = -count % _ROUND
    if not behind:
        return tensors
    return {
        name: np.concatenate([one, _nobody(name, (1, behind, *one.shape[2:]), one.dtype)], axis=1)
        if name.startswith("candidate")
        else one
        for name, one in tensors.items()
    }


def _nobody(name: str, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    return np.full(shape, np.nan if name == "candidate_features" else 0, dtype=kind)


def _unavailable(name: str, error: Any) -> ScorerUnavailable:
    status = str(error.status() or "")
    text = f"{name}: {error.message()}"
    return DeadlineExceeded(text) if "DEADLINE" in status else ScorerUnavailable(text)
