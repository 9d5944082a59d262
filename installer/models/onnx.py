"""Writes networks as ONNX, by the exporter that the torch at hand brings."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import AetherInstallError
from ..formats.onnx import metadata_entries

OPSET = 17
INPUT, OUTPUT = "input", "output"

_SIDE = 16
"""Pixels of the image that the network is shown; nothing of it stays in the graph."""

_FUNCTIONS_ADDED_BY = (
    "torch.onnx._internal.torchscript_exporter.onnx_proto_utils",
    "torch.onnx._internal.onnx_proto_utils",
)
"""The module that has torch's exporter add functions, since 2.9 and before."""


def export(network: nn.Module, channels: int, dtype: torch.dtype, metadata: Mapping[str, str]) -> bytes:
    """
    Returns a network as an ONNX model whose input and output are (batch, channels, height, width), all but C as wanted.

    Of torch's two exporters, this is the one that follows a trace: all releases since 2.0 have it, it writes the opset
    that is asked for, and needs no further package. The newer one needs onnxscript, and writes a later opset first.

    Args:
        network: on the CPU, in evaluation mode, without an engine.
        channels: C.
        dtype: of its weights, and of the image.
        metadata: noted in the model.

    Raises:
        AetherInstallError: this torch cannot.

    Source: https://docs.pytorch.org/docs/stable/onnx_torchscript.html
    """
    image = torch.zeros(1, channels, _SIDE, _SIDE, dtype=dtype)
    axes = {0: "batch", 2: "height", 3: "width"}
    options: dict[str, Any] = {
        "opset_version": OPSET,
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "dynamic_axes": {INPUT: axes, OUTPUT: axes},
    }
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    file: Any = io.BytesIO()
    try:
        with _quiet(), _without_package(), torch.no_grad():
            torch.onnx.export(network, (image,), file, **options)
    except Exception as error:  # Each release has its own ways to say what it lacks.
        raise AetherInstallError(_remedy(error, dtype), details=f"{type(error).__name__}: {error}") from error
    model: bytes = file.getvalue()
    return model + metadata_entries(metadata)


def _remedy(error: Exception, dtype: torch.dtype) -> str:
    version, python = torch.__version__, sys.executable
    if dtype == torch.float16 and "Half" in str(error):
        return (
            f"torch {version} cannot compute in float16 on a CPU, so it writes no such ONNX; use a later one "
            "(--python, --host), or --dtype float32"
        )
    if not _has_package():
        return f"torch {version} needs the package onnx to write ONNX; install that in {python}"
    return f"torch {version} cannot write ONNX; name another Python with --python or --host"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what the exporter tells programmers: that there is a newer one, and what 2.0 prints each time."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _without_package() -> Iterator[None]:
    """
    Lets the exporter do without the package onnx, where that is not there.

    It would only look through what it has written for functions of users' own to add, and there are none.
    """
    module = None if _has_package() else _importable(_FUNCTIONS_ADDED_BY)
    name = "_add_onnxscript_fn"
    if module is None or not hasattr(module, name):
        yield
        return
    original = getattr(module, name)
    setattr(module, name, lambda model, *_, **__: model)
    try:
        yield
    finally:
        setattr(module, name, original)


def _has_package() -> bool:
    try:
        import onnx  # noqa: F401
    except Exception:  # It may be there without what it needs.
        return False
    return True


def _importable(names: tuple[str, ...]) -> Any:
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None
