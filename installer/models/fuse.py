"""The command that merges the kernels of each block of a model, and writes it in the forms in which it is released."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ..errors import AetherInstallError
from . import onnx
from .checkpoint import read_checkpoint
from .compare import TOLERANCE, Comparison, Original
from .forms import ONNX_SUFFIX, OUTPUT_SUFFIXES, Form, converted, forms_of, widened
from .generations import StateDict
from .header import header_of
from .identify import Identity, Model, identify
from .inspection import forbidden_in_spandrel, is_read_by_torch, misleading_name
from .output import Together, whole_file
from .saving import write_weights


@dataclass(frozen=True)
class Written:
    """
    A file that was written.

    Attributes:
        path: of it.
        dtype: of all its weights, or ``mixed``.
        size: in bytes.
        vanished: by key, how many weights are too small for the dtype and became zero.
        comparison: with the source; None if it was skipped, or there is nothing to run an ONNX file.
    """

    path: Path
    dtype: str
    size: int
    vanished: dict[str, int]
    comparison: Comparison | None


@dataclass(frozen=True)
class Fused:
    """
    What was read and written.

    Attributes:
        source: the model as it was.
        written: the files.
        arguments: those that leave no trace in the weights, as the model was trained.
        folded: which of them were folded into the weights.
        fused_layers: number of blocks whose kernels were merged; 0 if that was done before.
        obstacle: why spandrel does not load the file that it was in; None if it does.
        skipped: how many objects of each name the file held that are no weights, and were left out.
        counts: number of weights before and after.
        size: bytes of the file before.
        verified: whether the files were to be compared with the source.
    """

    source: Identity
    written: tuple[Written, ...]
    arguments: dict[str, float]
    folded: dict[str, float]
    fused_layers: int
    obstacle: str | None
    skipped: Mapping[str, int]
    counts: tuple[int, int]
    size: int
    verified: bool


@dataclass(frozen=True)
class Options:
    """
    How to fuse.

    Attributes:
        model_type, upscale, img_range: what the caller knows of the model; an error if the file says otherwise.
        device: where the models are compared; a GPU if there is one.
        force: replace an output that is there.
        verify: compare each written file with the unfused model, and keep it only if they agree.
        dtypes: of the written files: none for those that the model has, one for all files, or one for each.
    """

    model_type: str | None = None
    upscale: int | None = None
    img_range: float | None = None
    device: str | None = None
    force: bool = False
    verify: bool = True
    dtypes: Sequence[str] = ()


class Progress(Protocol):
    """Told what is going on and, where there are several models, how many of them are done."""

    def __call__(self, message: str, *, part: tuple[int, int] | None = None) -> None: ...


def fuse(model: Path, outputs: Sequence[Path], options: Options, progress: Progress) -> Fused:
    """
    Writes the fused form of an AetherNet, with what its file states folded into the weights.

    One that is fused is written only if it needs folding, or other forms than that in which it is.

    Args:
        model: any file that ``identify`` finds an AetherNet in.
        outputs: .pth, .safetensors or .onnx files; all of them appear whole or none does.
        options: how.
        progress: told about every step.

    Raises:
        AetherInstallError: it is refused or fails, and nothing is written.
    """
    for output in outputs:
        _check_paths(model, output, options.force)
    _check_apart(outputs)
    device = _device(options.device)
    progress(f"reading {model}")
    source = identify(read_checkpoint(model))
    identity = source.identity
    _check_promises(source, options)
    forms = forms_of(outputs, options.dtypes, identity.dtype)
    arguments = _agreed_arguments(identity, options.img_range)
    assumed = identity.generation.assumed(identity.parameters)
    folded = {name: value for name, value in arguments.items() if not math.isclose(value, assumed[name])}
    obstacle = forbidden_in_spandrel(source.checkpoint)
    if identity.fused and not folded and obstacle is None:
        _check_changes(source, forms)
    now = {name: assumed[name] for name in folded}
    writer = _Writer(source, folded, header_of(source.checkpoint, now))
    original = Original(source, arguments, device)
    written = []
    with Together() if len(forms) > 1 else nullcontext() as together, ExitStack() as unpublished:
        for form in forms:
            progress(f"writing {form.path}")
            made, vanished = writer.made(form)
            with _explaining(form.path):
                file = unpublished.enter_context(_published(form.path, options.force, together))
                writer.write(form, made, file)
                size = file.stat().st_size
            comparison = None
            if options.verify:
                progress(f"comparing {form.path.name} with {model.name}")
                compare = original.compare_onnx if form.suffix == ONNX_SUFFIX else original.compare
                comparison = compare(made, file, form.path)
            written.append(Written(form.path, _dtype_of(made), size, vanished, comparison))
    return Fused(
        source=identity,
        written=tuple(written),
        arguments=arguments,
        folded=folded,
        fused_layers=0 if identity.fused else sum(identity.generation.describe(identity.parameters)["depths"]),
        obstacle=obstacle,
        skipped=source.checkpoint.skipped,
        counts=(identity.count, sum(tensor.numel() for tensor in made.values())),
        size=model.stat().st_size,
        verified=options.verify,
    )


class _Writer:
    """
    Writes the forms of a model.

    Args:
        source: the model.
        folded: what is folded into its weights.
        header: of safetensors files.
    """

    def __init__(self, source: Model, folded: Mapping[str, float], header: Mapping[str, str]) -> None:
        self._source, self._folded, self._header = source, folded, header
        self._generation = source.identity.generation

    def made(self, form: Form) -> tuple[StateDict, dict[str, int]]:
        """Returns the weights of a form, and how many of each key vanished in it."""
        weights, path = widened(self._source.weights, form.dtype), self._source.identity.path
        try:
            if self._folded:
                weights = self._generation.fold(weights, **self._folded)
            fused = weights if self._source.identity.fused else self._generation.fuse(weights)
        except ValueError as error:
            wider = " (--dtype float32 does)" if form.dtype is None and "float16" in _dtype_of(weights) else ""
            raise AetherInstallError(f"{path}: {error}{wider}") from error
        return converted(fused, form.dtype, path)

    def write(self, form: Form, made: StateDict, file: Path) -> None:
        """Writes them into a file that is there."""
        if form.suffix != ONNX_SUFFIX:
            write_weights(made, file, form.suffix, self._header)
            return
        assert form.dtype is not None
        identity = self._source.identity
        facts = self._generation.describe(identity.parameters)
        metadata = {
            "architecture": self._generation.family,
            "generation": self._generation.name,
            "variant": identity.variant or "custom",
            "scale": str(facts["upscale"]),
            "channels": str(facts["in_chans"]),
            "dtype": str(form.dtype)[6:],
        }
        network = self._generation.build(made, form.dtype)
        file.write_bytes(onnx.export(network, facts["in_chans"], form.dtype, metadata))


@contextmanager
def _published(output: Path, force: bool, together: Together | None) -> Iterator[Path]:
    """See ``whole_file``."""
    with _explaining(output), whole_file(output, force, together) as unpublished:
        yield unpublished


@contextmanager
def _explaining(output: Path) -> Iterator[None]:
    """Says in a sentence why a file cannot be written."""
    try:
        yield
    except FileExistsError as error:
        raise _exists(output) from error
    except OSError as error:
        raise AetherInstallError(f"{output} cannot be written ({error.strerror or error}); {_remedy(error)}") from error


def _dtype_of(made: StateDict) -> str:
    dtypes = {str(tensor.dtype)[6:] for tensor in made.values() if tensor.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else "mixed"


def _check_changes(source: Model, forms: Sequence[Form]) -> None:
    """Refuses to write a fused model as the file that it is in."""
    identity, checkpoint = source.identity, source.checkpoint
    if any(form.changes(checkpoint, identity.dtype) for form in forms):
        return
    misnamed = misleading_name(checkpoint)
    way_out = "; use it as it is, or ask for another --dtype, or for .safetensors or .onnx"
    if checkpoint.format == "safetensors":
        way_out = "; use it as it is, or ask for another --dtype, or for .pth or .onnx"
    if misnamed:
        who = "few hosts load" if is_read_by_torch(checkpoint) else "no host loads"
        way_out = f", but {who} it: spandrel goes by the name, {misnamed}"
    raise AetherInstallError(f"{identity.path} is fused already ({identity.description}){way_out}")


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "choose another place, or close the program that has it open"
    return "choose another place or make room"


def _check_paths(model: Path, output: Path, force: bool) -> None:
    if output.suffix.lower() not in OUTPUT_SUFFIXES:
        raise AetherInstallError(f"{output} must end in {' or '.join(OUTPUT_SUFFIXES)}, which decides the format")
    if output.exists() and model.exists() and os.path.samefile(model, output):
        raise AetherInstallError(f"{output} is the model itself, which is never overwritten; name another output")
    if os.path.lexists(output) and not force:
        raise _exists(output)
    if output.is_dir():
        raise AetherInstallError(f"{output} is a folder; name a file in it")


def _check_apart(outputs: Sequence[Path]) -> None:
    places = [Path(os.path.normcase(output.parent.resolve() / output.name)) for output in outputs]
    for place, output in zip(places, outputs, strict=True):
        if places.count(place) > 1:
            raise AetherInstallError(f"{output} is named twice; name each output once")
        if any(place in other.parents for other in places):
            raise AetherInstallError(f"{output} is the folder of another output; name another place for one of them")


def _exists(output: Path) -> AetherInstallError:
    return AetherInstallError(f"{output} is there already; name another output, or add --force to replace it")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # Each backend has its own way to say that it is not there.
        reason = str(error).strip().partition("\n")[0]
        raise AetherInstallError(f"device {name} cannot be used here ({reason}); try --device cpu") from error
    return device


def _check_promises(source: Model, options: Options) -> None:
    identity, path = source.identity, source.identity.path
    for key, tensor in source.weights.items():
        if tensor.is_floating_point() and tensor.dtype not in TOLERANCE:
            raise AetherInstallError(
                f"{path} holds {key} as {str(tensor.dtype)[6:]}, which is not fused; use the float16 or "
                "float32 file of the same model"
            )
    if options.model_type is not None and options.model_type != f"aether_{identity.variant}":
        raise AetherInstallError(
            f"{path} is not {options.model_type} but {identity.description}; leave out --model_type or correct it"
        )
    scale = identity.generation.describe(identity.parameters)["upscale"]
    if options.upscale is not None and options.upscale != scale:
        raise AetherInstallError(
            f"{path} does not upscale {options.upscale}x: it is {identity.description}; leave out --upscale or "
            "correct it"
        )


def _agreed_arguments(identity: Identity, promised: float | None) -> dict[str, float]:
    """The arguments that leave no trace in the weights, as the file states them or, failing that, the caller."""
    noted = identity.noted.get("img_range")
    if promised is not None and noted is not None and promised != noted:
        raise AetherInstallError(
            f"{identity.path} states img_range {noted:g} in its metadata and --img_range says {promised:g}; "
            "leave out the flag to go by the file"
        )
    if promised is not None and not 0 < promised < float("inf"):
        raise AetherInstallError(f"--img_range {promised:g} is not a positive number; correct it")
    given = {} if promised is None else {"img_range": promised}
    return {**identity.generation.assumed(identity.parameters), **given, **identity.noted}
