"""
Does with a model file what a host does, in the host's own Python and with its own spandrel, and tells of every step.

The one argument is JSON, with these keys:

- ``mark``: what every answer starts with, so that it can be told from whatever else is printed.
- ``package``: the folder of the spandrel to import; null for the one that this Python imports by itself.
- ``file``: the model; null for a small one that is made in ``folder``.
- ``host``: the name of the host, for sentences.
- ``suffixes``: what the host lists; ``archive``: a pattern for every name in a zip archive, or empty.
- ``reader``: ``spandrel``, ``torch`` (``weights_only``), or ``both``.
- ``half``: whether the host uses half precision where a model supports it.
- ``channels``: how many the host gives to every model; null if it gives each what that takes.
- ``is_listed``: whether the file is where the host lists models.

An answer is JSON on one line: ``step`` alone as the step begins; ``ok`` and ``detail``, and ``cause`` where it failed
or calls for advice all the same, when it ends. No step follows one that failed.
"""

import sys

if __name__ == "__main__" and sys.path[:1] == [""]:
    # The current folder, in which a module of any name may lie.
    del sys.path[0]

import copy
import importlib
import importlib.util
import json
import math
import os
import platform
import re
import site
import warnings
import zipfile
from typing import Any, Callable, Dict, List, Optional, TextIO, Tuple

READ_BY_FUSE = re.compile(
    r"(collections|typing)\.(OrderedDict|Counter)|_codecs\.encode"
    r"|torch\.(Size|device|Tensor|bool|\w+Storage|(b?float|complex|q?u?int)[\dx]+)"
    r"|torch\.per_(tensor|channel)_(affine|symmetric)|torch\.storage\.UntypedStorage|torch\.nn\.parameter\.Parameter"
    r"|torch\.torch_version\.TorchVersion|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\._utils\._rebuild_(q?tensor|tensor_v[23]|parameter|parameter_with_state)|torch\.float8_\w+"
)
"""What a pickle may ask for lest ``fuse`` refuses it too: plain values and weights (``models/unpickle.py``)."""


class StepError(Exception):
    """A step fails: a word for the cause, and a sentence."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "%s: %s" % (type(error).__name__, lines[0]) if lines else type(error).__name__


class Replay:
    """The steps, in their order; what one of them finds is an attribute for those that follow."""

    def __init__(self, asked: Dict[str, Any], tell: Callable[..., None]) -> None:
        self.asked = asked
        self.tell = tell
        self.host = asked["host"]
        self.complaints: List[str] = []
        self.notes: Dict[str, Any] = {}
        self.caution = ""

    def python(self) -> str:
        try:
            import torch
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            detail = "%s (Python %s) has no torch" % (sys.executable, platform.python_version())
            raise StepError("no torch", detail) from error
        version = str(torch.__version__)
        match = re.match(r"(\d+)\.(\d+)", version)
        if match and (int(match.group(1)), int(match.group(2))) < (2, 0):
            raise StepError("old torch", "torch %s is too old, AetherNet needs 2.0 or later" % version)
        gpu = _gpu()
        self.devices = ["cpu", gpu] if gpu else ["cpu"]
        return "Python %s, torch %s, %s, %s" % (platform.python_version(), version, gpu or "no GPU", sys.executable)

    def spandrel(self) -> str:
        name, folder = "spandrel", self.asked["package"]
        if folder:
            parent, name = os.path.split(folder)
            sys.path.insert(0, parent)
        spec = importlib.util.find_spec(name)
        # What is left over from an uninstalled package is importable too, but has no origin.
        if spec is None or not spec.origin:
            raise StepError("no spandrel", "%s has no spandrel" % (folder or sys.executable))
        self.package = os.path.dirname(os.path.abspath(spec.origin))
        if folder and os.path.realpath(self.package) != os.path.realpath(folder):
            raise StepError("no spandrel", "there is no spandrel in %s" % folder)
        self.tell(package=self.package)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.library = importlib.import_module(name)
        self.complaints = [str(warning.message) for warning in caught if "AetherNet" in str(warning.message)]
        version = getattr(self.library, "__version__", "of unknown version")
        if not hasattr(getattr(self.library, "ArchSupport", None), "from_architecture"):
            raise StepError(
                "old spandrel", "spandrel %s has no registry of the kind that 0.3.0 and later have" % version
            )
        return "%s in %s%s" % (version, self.package, self._left_out())

    def _left_out(self) -> str:
        """Of a spandrel among the user's own packages, where this Python was told to leave those out."""
        package = os.path.join(site.getusersitepackages(), "spandrel")
        if not sys.flags.no_user_site or not os.path.isfile(os.path.join(package, "__init__.py")):
            return ""
        return ", and not %s, since it is started without the user's own packages" % package

    def taught(self) -> str:
        known = [support.architecture for support in self.library.MAIN_REGISTRY]
        ids = [str(architecture.id) for architecture in known]
        ours = [name for name in ids if name.startswith("AetherNet")]
        if not ours:
            if self.complaints:
                raise StepError("broken", self.complaints[0])
            raise StepError("untaught", "none of its %d architectures is AetherNet" % len(ids))
        self.ours = sys.modules[type(known[ids.index(ours[0])]).__module__]
        return "payload %s: %s" % (getattr(self.ours, "__version__", "of unknown version"), ", ".join(ours))

    def file(self) -> str:
        self.path = self.asked["file"]
        said = ""
        if self.path is None:
            self.path = os.path.join(self.asked["folder"], "small.pth")
            self._make_model()
            said = "a small AetherNet, made for this, "
        if not os.path.isfile(self.path):
            there = "is a folder" if os.path.isdir(self.path) else "is not there"
            raise StepError("no file", "%s %s" % (self.path, there))
        size = os.path.getsize(self.path)
        if size == 0:
            raise StepError("empty", "%s is empty" % self.path)
        with open(self.path, "rb") as opened:
            opened.read(1)
        suffix = os.path.splitext(self.path)[1].lower()
        listed = self.asked["suffixes"]
        if not listed:
            raise StepError("no choice", "%s lists no models of one's own" % self.host)
        if suffix not in listed:
            detail = "%s lists %s, and no %s" % (self.host, " ".join(listed), suffix or "file without a suffix")
            raise StepError(self._better_name() or "suffix", detail)
        if self.asked["archive"] and zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as archive:
                refused = [name for name in archive.namelist() if not re.fullmatch(self.asked["archive"], name)]
            if refused:
                raise StepError("archive", "%s refuses archives that hold %s" % (self.host, ", ".join(refused)))
        told = "%s%s bytes, %s is listed by %s" % (said, format(size, ","), suffix, self.host)
        if self.asked["is_listed"]:
            return told
        self.caution = "elsewhere"
        return "%s, but not from %s" % (told, os.path.dirname(self.path))

    def _better_name(self) -> Optional[str]:
        """Which suffix that the host lists the content asks for, where the file has one that is not or does not fit."""
        with open(self.path, "rb") as opened:
            start = opened.read(16)
        fitting: Tuple[str, ...] = ()
        if start[8:9] == b"{":
            fitting = (".safetensors", ".sft")
        elif start[:2] in (b"PK", b"\x80\x02"):
            fitting = (".pth", ".ckpt", ".pt", ".bin")
        listed = [suffix for suffix in fitting if suffix in self.asked["suffixes"]]
        if not listed or self.path.lower().endswith(tuple(listed)):
            return None
        return "rename to " + listed[0]

    def _make_model(self) -> None:
        import torch

        if not hasattr(self.ours, "aether"):
            raise StepError("no sample", "the AetherNet here is somebody else's, and makes no model to try it with")
        model = self.ours.aether(embed_dim=8, depths=(1,), upscale=2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
        # In the format of before 1.6, which every host takes: what today's torch puts into its archives, some refuse.
        torch.save(model.state_dict(), self.path, _use_new_zipfile_serialization=False)

    def read(self) -> str:
        """Every reader is tried; whether it counts depends on the host."""
        readers = {"spandrel": self._read_as_spandrel, "torch": self._read_as_torch}
        needed = {"both": ["spandrel", "torch"]}.get(self.asked["reader"], [self.asked["reader"]])
        said = []
        for name in sorted(readers, key=lambda name: name not in needed):
            try:
                weights, how = readers[name]()
            except Exception as error:
                trouble = self._why_unreadable(error)
                if name in needed:
                    raise trouble from error
                others = {"spandrel": "spandrel's own reader", "torch": "torch.load(weights_only=True)"}[name]
                said.append("%s, as other hosts read, fails (%s)" % (others, trouble.detail))
                continue
            if name == needed[0]:
                self.weights = weights
            if name in needed:
                said.append(how)
        if isinstance(self.weights, dict):
            self.weights = self.library.canonicalize_state_dict(self.weights)
        if not isinstance(self.weights, dict) or not self.weights:
            raise StepError("no weights", "it holds no state dict")
        return "%d entries by %s" % (len(self.weights), ", ".join(said))

    def _read_as_spandrel(self) -> Tuple[Any, str]:
        return self.library.ModelLoader("cpu").load_state_dict_from_file(self.path), "spandrel's own reader"

    def _read_as_torch(self) -> Tuple[Any, str]:
        import torch

        if self.path.lower().endswith((".safetensors", ".sft")):
            from safetensors import safe_open
            from safetensors.torch import load_file

            with safe_open(self.path, framework="pt") as opened:
                self.notes = opened.metadata() or {}
            return load_file(self.path, device="cpu"), "safetensors"
        content = torch.load(self.path, map_location="cpu", weights_only=True)
        if isinstance(content, dict):
            self.notes = content
            # As ComfyUI unwraps them, which spandrel then does again.
            if isinstance(content.get("state_dict"), dict):
                content = content["state_dict"]
            elif len(content) == 1 and isinstance(next(iter(content.values())), dict):
                content = next(iter(content.values()))
        return content, "torch.load(weights_only=True)"

    def _why_unreadable(self, error: BaseException) -> StepError:
        if _is_out_of_memory(error):
            return StepError("memory", _words(error))
        detail = _words(error)
        # In the words of spandrel, and of torch's releases.
        refused = re.search(r"(?:Global '|GLOBAL |Unsupported class )([\w.]+)", str(error))
        if refused:
            name = refused.group(1)
            detail = "it holds %s, which is refused unread" % name
            if re.search(r"qtensor|QU?Int|quantiz", name):
                return StepError("int8", detail)
            if re.search(r"_rebuild_tensor_v3|float8", name):
                return StepError("fp8", detail)
            if name.endswith("_rebuild_parameter"):
                return StepError("parameters", detail)
            return StepError("plain" if READ_BY_FUSE.fullmatch(name) else "pickle", detail)
        if "constants.pkl" in str(error):
            return StepError("rename to .pth", "this spandrel takes any .pt for TorchScript, which it is not")
        if "TorchScript" in str(error):
            return StepError("pickle", "it is a TorchScript program")
        if isinstance(error, AttributeError):
            # Whoever looks for keys in it finds that it is no mapping.
            return StepError("no weights", "it holds no state dict")
        better = self._better_name()
        if better:
            return StepError(better, "by content it is no %s" % os.path.splitext(self.path)[1])
        return StepError("damaged", detail)

    def detected(self) -> str:
        supports = self.library.MAIN_REGISTRY.architectures("detection")
        found = next((support.architecture for support in supports if support.detect(self.weights)), None)
        if found is None:
            reason = self._refusal()
            if reason:
                raise StepError("refused", "it is %s" % reason)
            first = ", ".join(map(str, list(self.weights)[:3]))
            raise StepError("unknown", "none of %d architectures is it; its first keys are %s" % (len(supports), first))
        self.is_ours = str(found.id).startswith("AetherNet")
        return str(found.id) if self.is_ours else "%s, which is no AetherNet" % found.id

    def _refusal(self) -> Optional[str]:
        """What the payload says of weights that it knows and does not load."""
        folder = self.ours.__name__ + ".__arch."
        modules = [sys.modules.get(folder + name) for name in ("aether_core", "aether3_core")]  # before version 2
        generations = getattr(sys.modules.get(folder + "generations"), "GENERATIONS", modules)
        for generation in generations:
            reason = generation.refusal(self.weights) if hasattr(generation, "refusal") else None
            if reason:
                return str(reason)
        return None

    def loaded(self) -> str:
        try:
            self.model = self.library.ModelLoader("cpu").load_from_state_dict(self.weights).eval()
        except ValueError as error:
            raise StepError("refused" if "int8" in str(error) else "damaged", str(error)) from error
        if not isinstance(self.model, self.library.ImageModelDescriptor):
            raise StepError("no image model", "it is a model for %s, no upscaler" % self.model.purpose)
        name = getattr(self.model, "name", self.model.architecture.name)
        unheeded = self._unheeded() if self.is_ours else ""
        self.caution = "unheeded" if unheeded else ""
        return "%s, %dx, tags %s%s" % (name, self.model.scale, " ".join(self.model.tags), unheeded)

    def _unheeded(self) -> str:
        """What the file states of the network and the weights do not, so that the one that was loaded differs."""
        metadata, config = (_mapping(self.notes.get(key)) for key in ("metadata", "arch_config"))
        stated = {**metadata, **_mapping(metadata.get("arch_config")), **config}
        said = ""
        for name in ("img_range", "res_scale"):
            assumed = next((getattr(m, name) for m in self.model.model.modules() if hasattr(m, name)), None)
            try:
                factor = float(stated[name])
            except (KeyError, TypeError, ValueError):
                continue
            if assumed is not None and not math.isclose(factor, assumed):
                said += "; the file states %s %g, and it is run with %g" % (name, factor, assumed)
        return said

    def upscaled(self) -> str:
        import torch

        self._check_weights()
        given, takes = self.asked["channels"], self.model.input_channels
        if given and takes != given:
            what = "takes %d channel%s, and %s gives %d to every model" % (takes, "s"[: takes != 1], self.host, given)
            raise StepError("channels", "it %s" % what)
        height, width = self._sides(20, 24)
        generator = torch.Generator().manual_seed(0)
        self.picture = torch.rand(1, self.model.input_channels, height, width, generator=generator)
        self.expected = self._plainly()
        said = ["%dx%d to %dx%d" % (width, height, width * self.model.scale, height * self.model.scale)]
        for device in self.devices:
            apart = self._difference(torch.float32, device)
            # Graphics processors may convolve in TF32, of 10 bits.
            self._check(apart, 1e-4 if device == "cpu" else 1e-2, "float32 on %s" % device)
            said.append("within %.1e of a plain evaluation on %s" % (apart, device))
        return ", ".join(said)

    def _check_weights(self) -> None:
        for key, tensor in self.model.model.named_parameters():
            if not bool(tensor.isfinite().all()):
                raise StepError("not finite", "the weights are not all numbers: %s holds NaN or infinity" % key)

    def _sides(self, height: int, width: int) -> Tuple[int, int]:
        needs = self.model.size_requirements
        sides = [-(-max(side, needs.minimum) // needs.multiple_of) * needs.multiple_of for side in (height, width)]
        return (max(sides), max(sides)) if needs.square else (sides[0], sides[1])

    def _plainly(self) -> Any:
        """The output by other means: in double precision and, as no short cut is taken then, with gradients."""
        import torch

        if self.is_ours:
            with torch.enable_grad():
                return copy.deepcopy(self.model.model).double()(self.picture.double()).detach()
        try:
            return copy.deepcopy(self.model).to(torch.float64)(self.picture.double())
        except RuntimeError:  # Some networks know single precision alone.
            return self.model(self.picture)

    def _difference(self, dtype: Any, device: str) -> float:
        """The largest difference between the host's result and the plain one, over the size of the latter."""
        import torch

        model = self.model.to(torch.device(device)).to(dtype)
        picture = self.picture.to(device=device, dtype=dtype)
        result = model(picture)
        where = "in %s on %s" % (str(dtype)[6:], device)
        wanted = [1, model.output_channels] + [side * model.scale for side in picture.shape[2:]]
        if list(result.shape) != wanted:
            raise StepError("wrong size", "%s it makes %s of a picture, not %s" % (where, list(result.shape), wanted))
        if self.is_ours:
            # Without the limits of [0, 1], behind which a difference could hide.
            with torch.inference_mode():
                result = model.model(picture)
        if not bool(result.isfinite().all()):
            cause = "not finite" if dtype == torch.float32 else "half overflows"
            raise StepError(cause, "%s pixels come out as NaN or infinity" % where)
        apart = (result.cpu().double() - self.expected.double()).abs().max()
        return float(apart / max(1.0, float(self.expected.abs().max())))

    def _check(self, apart: float, limit: float, where: str) -> None:
        if not apart <= limit:
            raise StepError("differs", "in %s pixels are up to %.1e from a plain evaluation" % (where, apart))

    def half(self) -> str:
        import torch

        uses = self.asked["half"]
        dtype = torch.float16 if self.model.supports_half else torch.bfloat16
        device = self.devices[-1]
        if not (self.model.supports_half or self.model.supports_bfloat16):
            return "this architecture has none, so that hosts keep to float32"
        if device == "cpu" and not self.is_ours:
            return "there is no GPU, and on a CPU hosts keep to float32"
        where = "%s on %s" % (str(dtype)[6:], device)
        said = "" if uses else "not used by %s; " % self.host
        try:
            apart = self._difference(dtype, device)
            self._check(apart, 3e-2, where)
        except Exception as error:
            # On a CPU hosts keep to float32, if only because older releases of torch lack operations there.
            if uses and not (device == "cpu" and "not implemented for" in str(error)):
                raise
            return "%sin %s it would fail: %s" % (said, where, error)
        return "%s%s, within %.1e of a plain evaluation" % (said, where, apart)


def _mapping(noted: Any) -> Dict[str, Any]:
    if isinstance(noted, str):
        try:
            noted = json.loads(noted)
        except (ValueError, RecursionError):
            return {}
    return dict(noted) if isinstance(noted, dict) else {}


def _gpu() -> Optional[str]:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "allocate memory" in words


STEPS = ("python", "spandrel", "taught", "file", "read", "detected", "loaded", "upscaled", "half")


def _private_channel(mark: str) -> Callable[..., None]:
    """Answers go to what is stdout now; whatever else is printed from here on goes to stderr."""
    sys.stdout.flush()
    answers: TextIO = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def write(**answer: Any) -> None:
        answers.write("\n" + mark + json.dumps(answer) + "\n")
        answers.flush()

    return write


def replay(asked: Dict[str, Any], tell: Callable[..., None]) -> None:
    """Takes the steps, and tells when one begins and how it went, until one of them fails."""
    steps = Replay(asked, tell)
    for step in STEPS:
        tell(step=step)
        try:
            detail = getattr(steps, step)()
        except StepError as error:
            tell(step=step, ok=False, detail=error.detail, cause=error.cause)
            return
        except Exception as error:
            cause = "memory" if _is_out_of_memory(error) else "raised"
            tell(step=step, ok=False, detail=_words(error), cause=cause)
            return
        tell(step=step, ok=True, detail=detail, cause=steps.caution)
        steps.caution = ""


def main(asked: Dict[str, Any]) -> None:
    replay(asked, _private_channel(asked["mark"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
