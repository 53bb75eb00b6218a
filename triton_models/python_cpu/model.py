"""Triton's python backend: the graph beside this file in onnxruntime, on one CPU thread.

The backend's interpreter is isolated: it reads no PYTHONPATH. ``ENDCAP_TRITON_SITE_PACKAGES`` names the folders (joined
like a PATH) that hold numpy and onnxruntime.
"""

import os
import site
from pathlib import Path

for _folder in os.environ.get("ENDCAP_TRITON_SITE_PACKAGES", "").split(os.pathsep):
    if _folder:
        site.addsitedir(_folder)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402


class TritonPythonModel:
    """One instance of one version."""

    def initialize(self, args: dict) -> None:
        """Load the graph. ``args`` is the backend's."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in self.session.get_inputs()]

    def execute(self, requests: list) -> list:
        """Answer each request of a batch by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: object) -> object:
        try:
            # DLPack, because as_numpy() and Tensor(name, array) give empty tensors with numpy 2.
            tensors = {name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in self.names}
            (scores,) = self.session.run(["scores"], tensors)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        tensor = pb_utils.Tensor.from_dlpack("scores", np.ascontiguousarray(scores))
        return pb_utils.InferenceResponse(output_tensors=[tensor])
