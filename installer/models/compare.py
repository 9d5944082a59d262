"""Whether a written model is what it was made from: tensor by tensor, and in the picture that it makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch

from ..errors import AetherInstallError
from ..formats.onnx import read_onnx
from .checkpoint import read_checkpoint
from .generations import StateDict
from .identify import Model

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}
"""Largest difference that passes for each dtype, relative to the range of the original model's output."""

_ROUNDINGS = 8
"""How many units in the last place of the largest output two right models may lie apart, whatever the range is."""

_ERRORS = 3
"""The severity from which on ONNX Runtime speaks."""

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

_SMALLEST_SIDE = 16

_ODD_SIZES = ((1, 1, 1), (1, 7, 5), (3, 19, 34))
"""Images, height, width."""


@dataclass(frozen=True)
class Comparison:
    """
    A written model beside the one it was made from.

    Attributes:
        tensors: how many were read back; from other files than ONNX, each is as it should be.
        side: of the square image that both were run on, in pixels.
        max_abs_diff: largest difference of any output value.
        output_range: largest minus smallest output value of the original model.
        seconds: that the written model took for that image, in one thread.
        runtime: what ran it.
    """

    tensors: int
    side: int
    max_abs_diff: float
    output_range: float
    seconds: float
    runtime: str


class Original:
    """
    The model that others are made from, and the pictures that it makes.

    Args:
        source: the model.
        arguments: those of its network that leave no trace in the weights, as it was trained.
        device: where it is run.
    """

    def __init__(self, source: Model, arguments: Mapping[str, float], device: torch.device) -> None:
        self._source, self._arguments, self._device = source, arguments, device
        self._path, self._generation = source.identity.path, source.identity.generation
        facts = self._generation.describe(source.identity.parameters)
        self._channels, self._side = facts["in_chans"], max(_SMALLEST_SIDE, facts["lk_kernel"])
        self._dtype = source.weights["conv_first.weight"].dtype
        # In half precision two right models differ by a step of their last digit, which is more than the weights
        # differ by.
        self._computed = torch.promote_types(self._dtype, torch.float32)
        self._outputs: dict[torch.Size, torch.Tensor] = {}

    def compare(self, made: StateDict, written: Path, name: Path) -> Comparison:
        """
        Reads a written file of weights back, and compares it.

        Args:
            made: the weights that were written.
            written: the file.
            name: which it will have.

        Raises:
            AetherInstallError: they differ, or the original gives no finite output.
        """
        read_back = dict(read_checkpoint(written).content)
        _check_tensors(self._source, self._arguments, made, read_back)
        image = self._image(1, self._side, self._side)
        with _one_thread(), torch.inference_mode():
            self._output(image)  # first, lest the time be that of torch's own start
            network, given = self._generation.build(read_back, self._computed).to(self._device), image.to(self._device)
            start = time.perf_counter()
            output = network(given).cpu()
            seconds = time.perf_counter() - start
        return self._judged([(image, output)], made, name, len(made), seconds, "torch")

    def compare_onnx(self, made: StateDict, written: Path, name: Path) -> Comparison | None:
        """
        The same of an ONNX file, which ONNX Runtime runs on images of several sizes; None where that is not there.

        Raises:
            AetherInstallError: they differ, ONNX Runtime refuses the file, or the original gives no finite output.
        """
        square = self._image(1, self._side, self._side)
        images = [square, *(self._image(*size) for size in _ODD_SIZES)]
        try:
            run = _in_onnxruntime(written)
            if run is None:
                return None
            outputs = [(image, run(image)[1]) for image in images]
            seconds, _ = run(square)
        except Exception as error:  # It has many of its own.
            raise AetherInstallError(
                f"ONNX Runtime does not run what was made of {self._path}, so it was not written; update onnxruntime, "
                "or use --no-verify",
                details=f"{type(error).__name__}: {error}",
            ) from error
        known = read_onnx(written)
        return self._judged(outputs, made, name, len(known.shapes) if known else 0, seconds, "ONNX Runtime")

    def _image(self, number: int, height: int, width: int) -> torch.Tensor:
        image = torch.rand(number, self._channels, height, width, generator=torch.Generator().manual_seed(0))
        return image.to(self._dtype).to(self._computed)

    def _output(self, image: torch.Tensor) -> torch.Tensor:
        """What the original makes of an image of ours, of which there is one in each size."""
        if image.shape not in self._outputs:
            with _one_thread(), torch.inference_mode():
                network = self._generation.build(self._source.weights, self._computed, **self._arguments)
                output: torch.Tensor = network.to(self._device)(image.to(self._device))
            if not output.isfinite().all():
                raise AetherInstallError(
                    f"{self._path} itself gives no finite output for a test image, so nothing can be compared and "
                    "nothing was written; use --no-verify if that is as it should be"
                )
            self._outputs[image.shape] = output.cpu()
        return self._outputs[image.shape]

    def _judged(
        self,
        outputs: Sequence[tuple[torch.Tensor, torch.Tensor]],
        made: StateDict,
        name: Path,
        tensors: int,
        seconds: float,
        runtime: str,
    ) -> Comparison:
        expected = torch.cat([self._output(image).flatten() for image, _ in outputs])
        got = torch.cat([output.flatten().cpu() for _, output in outputs])
        if got.shape != expected.shape:
            raise AetherInstallError(
                f"{name} would make pictures of another size than {self._path} does, so it was not written; please "
                "report this with the model"
            )
        if not got.isfinite().all():
            raise AetherInstallError(
                f"{name} would give no finite output where {self._path} does, since its dtype cannot hold what is "
                "computed on the way, so it was not written; write float32"
            )
        difference = (got - expected).abs().max().item()
        output_range = (expected.max() - expected.min()).item()
        # Where a network has hardly been trained, the range is small beside the values, and so is what they round to.
        rounding = _ROUNDINGS * torch.finfo(self._computed).eps * expected.abs().max().item()
        dtypes = {tensor.dtype for tensor in (*made.values(), *self._source.weights.values())}
        tolerance = max(TOLERANCE[dtype] for dtype in dtypes if dtype.is_floating_point)
        if not difference <= max(tolerance * output_range, rounding):
            raise AetherInstallError(
                f"{name} would differ from {self._path} by {difference:.2g} where outputs span {output_range:.2g}, so "
                "it was not written; please report this with the model"
            )
        return Comparison(tensors, self._side, difference, output_range, seconds, runtime)


def _in_onnxruntime(path: Path) -> Callable[[torch.Tensor], tuple[float, torch.Tensor]] | None:
    """What runs an ONNX file on images, and says how long that took; None where ONNX Runtime is not there."""
    try:
        with redirect_stdout(StringIO()):
            import onnxruntime

            onnxruntime.disable_telemetry_events()
            onnxruntime.set_default_logger_severity(_ERRORS)
            options = onnxruntime.SessionOptions()
        torch.zeros(1).numpy()
    except KeyboardInterrupt:
        raise
    except BaseException:  # It may be there for another version of Python or numpy, which it says in many ways.
        return None
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    takes = session.get_inputs()[0]
    dtype = torch.float16 if takes.type == "tensor(float16)" else torch.float32

    def run(image: torch.Tensor) -> tuple[float, torch.Tensor]:
        given = {takes.name: image.to(dtype).numpy()}
        start = time.perf_counter()
        (output,) = session.run(None, given)
        return time.perf_counter() - start, torch.from_numpy(output).float()

    return run


def _check_tensors(source: Model, arguments: Mapping[str, float], made: StateDict, read_back: StateDict) -> None:
    """
    Checks that every tensor came back bit for bit, and that each one that was made is right.

    Those that were taken over are the source's own. The others are compared with the same arithmetic in float64, from
    which they may differ by one rounding to their dtype.
    """
    path = source.identity.path
    if set(made) != set(read_back):
        raise AetherInstallError(f"the file made of {path} lost tensors on the disk, so it was not kept; try again")
    for key, tensor in made.items():
        if not _same_bits(tensor, read_back[key]):
            raise AetherInstallError(
                f"{key} of the file made of {path} differs from what was written, so it was not kept; check the disk"
            )
    changed = {key for key, tensor in made.items() if tensor is not source.weights.get(key)}
    gone = source.weights.keys() - made.keys()
    generation = source.identity.generation
    exact = {
        key: tensor.double() if key in changed or key in gone else tensor for key, tensor in source.weights.items()
    }
    exact = generation.fold(exact, **arguments)
    if not source.identity.fused:
        exact = generation.fuse(exact)
    for key in changed:
        eps, tiny = torch.finfo(made[key].dtype).eps, torch.finfo(made[key].dtype).tiny
        if not torch.isclose(made[key].double(), exact[key], rtol=eps, atol=eps * tiny, equal_nan=True).all():
            raise AetherInstallError(
                f"{key} made of {path} is not what it should be, so nothing was written; please report this"
            )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # As integers, so that not-a-number equals itself; of the same width, since by single bytes this takes long.
    integers = _INTEGERS[one.element_size()]
    return torch.equal(*(tensor.contiguous().view(-1).view(integers) for tensor in (one, other)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small images are computed no faster by several threads, and far slower where other programs keep them busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
