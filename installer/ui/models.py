"""What fuse and inspect show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..formats.recognise import few
from ..hosts.acceptance import accepting, name_of
from ..hosts.installing import installing
from ..hosts.interpreter import running_interpreter
from .view import View

if TYPE_CHECKING:
    from ..formats.onnx import Onnx
    from ..models.batch import Batch
    from ..models.compare import Comparison
    from ..models.fuse import Fused, Written
    from ..models.inspection import Inspection


def fuse_view(result: Fused) -> View:
    """What fusing one model did."""
    source = result.source
    view = View(f"{source.description}: {_done(result)}")
    if len(result.written) == 1:
        view.facts.append(("written", str(result.written[0].path)))
    view.facts.append(("weights from", source.whereabouts))
    view.facts += [(name, f"{value:g}, folded into the weights") for name, value in result.folded.items()]
    if result.obstacle:
        view.facts.append(("in spandrel", f"the file before does not load: {result.obstacle}"))
    if result.skipped:
        view.facts.append(("left out", skipped(result.skipped)))
    if len(result.written) == 1:
        _show_beside_source(view, result, result.written[0])
    else:
        folders = {written.path.parent for written in result.written}
        if len(folders) == 1:
            view.facts.insert(0, ("written to", str(*folders)))
        view.columns = ["file", "size", "dtype", "largest difference", "time"]
        view.rows = [_written_row(written, len(folders) == 1) for written in result.written]
    view.advice = [*_advice(result)]
    view.described = _fused_described(result)
    return view


def _show_beside_source(view: View, result: Fused, written: Written) -> None:
    view.columns = ["", "before", "after"]
    view.rows = [
        ("weights", f"{result.counts[0]:,}", f"{result.counts[1]:,}"),
        ("dtype", result.source.dtype, written.dtype),
        ("file", _bytes(result.size), _bytes(written.size)),
    ]
    if written.comparison:
        view.rows += _comparison_rows(written.comparison)


def _written_row(written: Written, by_name: bool) -> tuple[str, ...]:
    name = written.path.name if by_name else str(written.path)
    facts, found = (name, _bytes(written.size), written.dtype), written.comparison
    if found is None:
        return (*facts, "not verified", "")
    difference = f"{found.max_abs_diff:.1e} of {found.output_range:.2g}"
    return (*facts, difference, f"{found.seconds * 1e3:.0f} ms for {found.side}x{found.side}, {found.runtime}")


def _advice(result: Fused) -> Iterator[str]:
    for written in result.written:
        if written.vanished:
            first, more = next(iter(written.vanished)), len(written.vanished) - 1
            yield (
                f"{sum(written.vanished.values())} weights are too small for {written.dtype} and became zero in "
                f"{written.path.name}, in {first}{f' and {more} more' if more else ''}; bfloat16 and float32 hold them."
            )
    if not result.verified:
        yield "Not verified: the written model was not compared with the one it was made from."
    elif any(written.comparison is None for written in result.written):
        yield (
            "Written, not verified: this Python has no ONNX Runtime to run ONNX with. To have it compared, run "
            f"{installing(running_interpreter(), 'onnxruntime')}, and then this command again with --force."
        )


def skipped(objects: Mapping[str, int]) -> str:
    """How many objects of a file are no weights, and what they are."""
    number = sum(objects.values())
    named = few([name if count == 1 else f"{count} {name}" for name, count in objects.items()])
    return f"{number} object{'s that are' if number > 1 else ' that is'} no weights: {named}"


def _done(result: Fused) -> str:
    if result.fused_layers:
        return f"{result.fused_layers} blocks fused"
    if result.folded:
        return f"fused before; {' and '.join(result.folded)} folded into the weights"
    if result.obstacle:
        return "fused before; written again as a file that spandrel reads"
    return "fused before; written in another form"


def batch_view(batch: Batch) -> View:
    """What fusing several models did."""
    view = View(f"{len(batch.done)} of {len(batch.done) + len(batch.failed)} models fused")
    view.mood = "bad" if batch.failed else "good"
    view.columns = ["model", "written", "what was done", "largest difference"]
    for result in batch.done:
        (written,) = result.written
        comparison = written.comparison
        view.rows.append(
            (
                f"{result.source.path.name}, {result.source.description}",
                str(written.path),
                _done(result),
                f"{comparison.max_abs_diff:.1e}" if comparison else "not verified",
            )
        )
    view.described = {
        "fused": [_fused_described(result) for result in batch.done],
        "failed": [{"model_path": str(path), "error": error.message} for path, error in batch.failed],
    }
    return view


def inspect_view(result: Inspection) -> View:
    """What a model file is."""
    identity, onnx = result.identity, result.onnx
    view = View(str(result.path), "good" if identity else "bad")
    if identity:
        view.headline += f": {identity.description}"
        view.facts = [
            ("generation", identity.generation.name),
            ("variant", identity.variant or "a size of its own"),
            ("form", "fused" if identity.fused else "unfused"),
            *((name, _text(value)) for name, value in identity.described.items() if value is not None),
            ("dtype", identity.dtype),
            ("weights from", identity.whereabouts),
        ]
    else:
        view.headline += f": {result.looks_like}"
        if onnx and onnx.generation:
            view.facts = [*_onnx_facts(onnx)]
    if result.skipped:
        view.facts.append(("beside them", skipped(result.skipped)))
    view.facts.append(("file", f"{result.format}, {_bytes(result.size)}"))
    taken = _taken(result)
    warnings = result.warnings
    if result.spandrel:
        view.facts.append(("in spandrel", result.spandrel.sentence))
        view.facts.append(("read by", _by_whom(taken)))
        if result.spandrel.obstacle:
            takers = [name_of(kind) for kind, takes in taken.items() if takes]
            who = f"only {_and(takers)} load this file" if takers else "no host loads this file"
            warnings.append(f"{who}, since spandrel's own loader does not: {result.spandrel.obstacle}")
    notes = [*_about_channels(_channels(result), taken)]
    view.advice = [*(f"Warning: {warning}." for warning in warnings), *notes]
    view.described = {
        "generation": identity.generation.name if identity else None,
        "variant": identity.variant if identity else None,
        "fused": identity.fused if identity else None,
        "parameters": identity.described if identity else None,
        "dtype": identity.dtype if identity else None,
        "container": identity.container if identity else None,
        "prefix": identity.prefix if identity else None,
        "skipped": dict(result.skipped),
        "format": result.format,
        "bytes": result.size,
        "looks_like": result.looks_like,
        "spandrel": {
            "loads": bool(result.spandrel and not result.spandrel.obstacle),
            "architecture": result.spandrel.architecture if result.spandrel else None,
            "obstacle": result.spandrel.obstacle if result.spandrel else None,
        },
        "hosts": [kind for kind, takes in taken.items() if takes],
        "warnings": warnings,
        "notes": notes,
    }
    if onnx and onnx.generation:
        view.described |= {
            "generation": onnx.generation,
            "variant": onnx.variant,
            "fused": onnx.fused,
            "parameters": {"embed_dim": onnx.embed_dim, "depths": onnx.depths, "upscale": onnx.scale},
            "dtype": onnx.dtype,
            "opset": onnx.opset,
        }
    return view


def _onnx_facts(onnx: Onnx) -> Iterator[tuple[str, str]]:
    yield "generation", str(onnx.generation)
    yield "variant", onnx.variant or "a size of its own"
    yield "form", "fused" if onnx.fused else "unfused"
    yield "upscale", _text(onnx.scale or "unknown")
    yield "dtype", _text(onnx.dtype or "unknown")
    yield "opset", _text(onnx.opset or "unknown")


def _taken(result: Inspection) -> dict[str, bool]:
    """Whether each kind of host reads the file, by its id."""
    if result.spandrel is None:
        return {}
    refused = {"spandrel": bool(result.spandrel.obstacle), "weights_only": not result.by_torch}
    return accepting(result.path.suffix.lower(), result.entries, refused, _channels(result))


def _channels(result: Inspection) -> int:
    """How many channels the model takes; those of a picture in colour if nobody knows."""
    return int(result.identity.described["in_chans"]) if result.identity else 3


def _about_channels(channels: int, taken: dict[str, bool]) -> Iterator[str]:
    """What is to be known of a model that most hosts feed wrongly, however well it is."""
    if taken and channels != 3:
        takers = [name_of(kind) for kind, takes in taken.items() if takes]
        where = f"it works in {_and(takers)}" if takers else "none that gives what it takes reads this file"
        counted = f"{channels} channel{'s' if channels > 1 else ''}"
        yield f"It takes {counted}, and most applications give three to every model; {where}."


def _by_whom(taken: dict[str, bool]) -> str:
    takers, others = ([name_of(kind) for kind, takes in taken.items() if takes is wanted] for wanted in (True, False))
    if not others:
        return "every application"
    if not takers:
        return "no application"
    return f"{_and(takers)} alone" if len(takers) < len(others) else f"every application but {_and(others)}"


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _comparison_rows(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    is_onnx = comparison.runtime != "torch"
    yield "tensors read back", "", f"{comparison.tensors}" + ("" if is_onnx else ", each as it should be")
    where = f"{comparison.side}x{comparison.side} pixels"
    where += f", and other sizes, in {comparison.runtime}" if is_onnx else ""
    span = f"in outputs that span {comparison.output_range:.2g}, {where}"
    yield "largest difference", "", f"{comparison.max_abs_diff:.1e}, {span}"


def _fused_described(result: Fused) -> dict[str, Any]:
    source, first = result.source, result.written[0]
    outputs = [_written_described(written) for written in result.written]
    return {
        "model_path": str(source.path),
        "generation": source.generation.name,
        "variant": source.variant,
        "parameters": {**source.described, **result.arguments},
        "dtype": source.dtype,
        "container": source.container,
        "fused_layers": result.fused_layers,
        "folded": result.folded,
        "obstacle": result.obstacle,
        "skipped": dict(result.skipped),
        "weights": {"before": result.counts[0], "after": result.counts[1]},
        "bytes": {"before": result.size, "after": first.size},
        **{key: outputs[0][key] for key in ("output_path", "tensors_compared", "max_abs_diff", "output_range")},
        "outputs": outputs,
    }


def _written_described(written: Written) -> dict[str, Any]:
    comparison = written.comparison
    return {
        "output_path": str(written.path),
        "bytes": written.size,
        "dtype": written.dtype,
        "vanished": written.vanished,
        "tensors_compared": comparison.tensors if comparison else None,
        "max_abs_diff": comparison.max_abs_diff if comparison else None,
        "output_range": comparison.output_range if comparison else None,
        "seconds": comparison.seconds if comparison else None,
        "runtime": comparison.runtime if comparison else None,
    }


def _text(value: object) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
