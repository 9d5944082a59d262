"""What fuse and inspect show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .view import View

if TYPE_CHECKING:
    from ..models.fuse import Batch, Comparison, Fused
    from ..models.inspection import Inspection


def fuse_view(result: Fused) -> View:
    """What fusing one model did."""
    source = result.source
    view = View(f"{source.description}: {result.fused_layers} blocks fused")
    view.facts.append(("written", str(result.output)))
    view.facts.append(("weights from", source.whereabouts))
    if result.img_range != 1:
        view.facts.append(("img_range", f"{result.img_range:g}, folded into the first and the last convolution"))
    view.columns = ["", "unfused", "fused"]
    view.rows = [
        ("weights", f"{result.counts[0]:,}", f"{result.counts[1]:,}"),
        ("file", _bytes(result.sizes[0]), _bytes(result.sizes[1])),
    ]
    if result.comparison:
        view.rows += _comparison_rows(result.comparison)
    else:
        view.advice.append("Not verified: the fused model was not compared with the unfused one.")
    view.described = _fused_described(result)
    return view


def batch_view(batch: Batch) -> View:
    """What fusing several models did."""
    view = View(f"{len(batch.done)} of {len(batch.done) + len(batch.failed)} models fused")
    view.mood = "bad" if batch.failed else "good"
    view.columns = ["model", "written", "largest difference", "speed-up"]
    for result in batch.done:
        comparison = result.comparison
        view.rows.append(
            (
                f"{result.source.checkpoint.path.name}, {result.source.description}",
                str(result.output),
                f"{comparison.max_abs_diff:.1e}" if comparison else "not verified",
                f"{comparison.speed_up:.2f}x" if comparison else "",
            )
        )
    view.described = {
        "fused": [_fused_described(result) for result in batch.done],
        "failed": [{"model_path": str(path), "error": error.message} for path, error in batch.failed],
    }
    return view


def inspect_view(result: Inspection) -> View:
    """What a model file is."""
    checkpoint, identity = result.checkpoint, result.identity
    view = View(str(checkpoint.path), "good" if identity else "bad")
    parameters = None
    if identity:
        view.headline += f": {identity.description}"
        parameters = _parameters(identity.parameters, identity.noted_img_range or 1.0)
        view.facts = [
            ("generation", result.generation or ""),
            ("variant", identity.variant or "a size of its own"),
            ("form", "fused" if identity.fused else "unfused"),
            *((name, _text(value)) for name, value in parameters.items()),
            ("dtype", identity.dtype),
            ("weights from", identity.whereabouts),
        ]
    else:
        view.headline += f": {result.looks_like}"
    view.facts.append(("file", f"{checkpoint.format}, {_bytes(result.size)}"))
    if result.spandrel:
        view.facts.append(("in spandrel", result.spandrel.sentence))
    view.advice = [f"Warning: {warning}." for warning in result.warnings]
    view.described = {
        "generation": result.generation,
        "variant": identity.variant if identity else None,
        "fused": identity.fused if identity else None,
        "parameters": parameters,
        "dtype": identity.dtype if identity else None,
        "container": identity.container if identity else None,
        "prefix": identity.prefix if identity else None,
        "format": checkpoint.format,
        "bytes": result.size,
        "looks_like": result.looks_like,
        "spandrel": {
            "loads": bool(result.spandrel and not result.spandrel.obstacle),
            "architecture": result.spandrel.architecture if result.spandrel else None,
            "obstacle": result.spandrel.obstacle if result.spandrel else None,
        },
        "warnings": result.warnings,
    }
    return view


def _comparison_rows(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    yield (
        f"one run, {comparison.side}x{comparison.side}",
        f"{comparison.seconds_unfused * 1e3:.0f} ms",
        f"{comparison.seconds_fused * 1e3:.0f} ms, {comparison.speed_up:.2f}x as fast",
    )
    yield "largest difference", "", f"{comparison.max_abs_diff:.1e}, in outputs that span {comparison.output_range:.2g}"


def _fused_described(result: Fused) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "model_path": str(result.source.checkpoint.path),
        "output_path": str(result.output),
        "variant": result.source.variant,
        "parameters": _parameters(result.source.parameters, result.img_range),
        "dtype": result.source.dtype,
        "container": result.source.container,
        "fused_layers": result.fused_layers,
        "max_abs_diff": comparison.max_abs_diff if comparison else None,
        "output_range": comparison.output_range if comparison else None,
        "seconds": {"before": comparison.seconds_unfused, "after": comparison.seconds_fused} if comparison else None,
        "weights": {"before": result.counts[0], "after": result.counts[1]},
        "bytes": {"before": result.sizes[0], "after": result.sizes[1]},
    }


def _parameters(parameters: dict[str, Any], img_range: float) -> dict[str, Any]:
    names = ("embed_dim", "depths", "upscale", "in_chans", "out_chans", "mlp_ratio", "lk_kernel", "sk_kernel")
    return {**{name: parameters[name] for name in names}, "img_range": img_range}


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
