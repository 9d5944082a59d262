"""Tells what a file is that was taken for a model and cannot be read as one, and what to do about it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .onnx import Onnx, read_onnx

_START = 4096
_PICKLE_AT_MOST = 2**22
"""Bytes of a pickle that are looked through; its keys come first."""

_SHOWN = 3
"""Names of what a file holds, at most."""

_MODEL_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".sft", ".bin", ".onnx", ".pkl")

_UNPACK = "unpack it, with 7-Zip for instance, and use the model inside"

_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (
        b"GGUF",
        "a GGUF file, in which programs for language and diffusion models keep theirs",
        "use the .pth or .safetensors of the upscaling model",
    ),
    (b"\x89PNG", "a picture", "name the model"),
    (b"\xff\xd8\xff", "a picture", "name the model"),
)
"""How files begin, what they are, and what to do."""

_TORCH_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class Recognised(NamedTuple):
    """
    What a file is.

    Attributes:
        what: with an article.
        remedy: what to do, without a capital letter and a full stop.
        onnx: what is known of the network, if that is what it is.
    """

    what: str
    remedy: str
    onnx: Onnx | None = None

    @property
    def sentence(self) -> str:
        """Both, to go after a file's name."""
        return f"is {self.what}; {self.remedy}"


def few(names: Sequence[str]) -> str:
    """The first of some names, which a file may have chosen at will, and how many more there are."""
    shown = ", ".join("".join(letter for letter in name[:60] if letter.isprintable()) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def recognise(path: Path) -> Recognised | None:
    """
    Says what a file or folder is that nobody can read as a model.

    None if it may well be a model, damaged perhaps, or is nothing that is known here. Never raises.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            start = file.read(_START)
        return _file(path, start)
    except Exception:  # Whatever a damaged archive or header makes its readers raise, it has no name here.
        return None


def _folder(path: Path) -> Recognised | None:
    if not any((folder / "data.pkl").is_file() for folder in (path, *path.iterdir())):
        return None
    return Recognised(
        "the folder of an unpacked PyTorch file, which no application reads",
        "download the file again and leave it packed (Safari unpacks by itself, unless told not to in its settings)",
    )


def _file(path: Path, start: bytes) -> Recognised | None:
    for magic, what, remedy in _MAGIC:
        if start.startswith(magic):
            return Recognised(what, remedy)
    if start[257:262] == b"ustar":
        return Recognised("a tar archive", _UNPACK)
    if start.startswith(b"PK"):
        return _archive(path) or _trained(path, start)
    if start[:1] == b"\x80" and not start.startswith(_TORCH_PICKLE) and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return Recognised(
            "a pickle that torch did not write", "ask for a file that torch or safetensors wrote, of weights alone"
        )
    if start and not start.strip(b"\0"):
        return Recognised("nothing but zeros where it begins: a download that was broken off", "download it again")
    text = _as_text(start)
    if text is not None:
        return _text(text)
    known = _trained(path, start)
    if known or start[8:9] == b"{":
        return known
    onnx = read_onnx(path)
    return _onnx(onnx) if onnx else None


def _onnx(found: Onnx) -> Recognised:
    return Recognised(
        f"{found.description}, and spandrel reads no ONNX",
        "use the .pth or .safetensors of the same model, or an application that runs ONNX, as chaiNNer's ONNX nodes do",
        found,
    )


def _as_text(start: bytes) -> str | None:
    if not start.strip() or re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", start):
        return None
    try:
        return start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The last letter may have been cut in two.
        return start[: error.start].decode("utf-8-sig") if error.start > len(start) - 4 else None


def _text(text: str) -> Recognised:
    beginning = text.lstrip()
    if beginning.startswith("version https://git-lfs"):
        return Recognised(
            "a Git LFS pointer, which stands for the model in a clone that was made without LFS",
            "run `git lfs install` and `git lfs pull` in that clone, or download the file by the button on its page, "
            "since its raw text is this pointer again",
        )
    if beginning.startswith("<"):
        title = re.search(r"<title[^>]*>\s*([^<]{1,60})", beginning, re.IGNORECASE)
        named = f" ({' '.join(title.group(1).split())!r})" if title else ""
        return Recognised(
            f"a web page{named} and no model",
            "open its link in a browser, sign in if it asks for that, and save the file by its download button (on "
            "Hugging Face the link to a file holds /resolve/, that to its page /blob/)",
        )
    words = " ".join(beginning.split())[:60]
    if beginning.startswith(("{", "[")):
        return Recognised(
            f"a JSON text ({words}) and no model",
            "download the model itself, since this is a description of it, or what a server said in its place",
        )
    return Recognised(f"a text ({words}) and no model", "download the model itself")


def _archive(path: Path) -> Recognised | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    folders = {name.partition("/")[0] for name in names if name.count("/") == 1 and name.endswith("/data.pkl")}
    exported = ("models/model.json", "archive_format", "serialized_exported_program.json")
    if any(name.endswith(exported) for name in names):
        return Recognised(
            "a program that torch.export wrote (.pt2) and no file of weights",
            "use the .pth or .safetensors that it was made from",
        )
    if any("/code/" in name for name in names):
        return Recognised(
            "a TorchScript program, whose weights few applications read, and those from a .pt alone",
            "use the checkpoint that it was made from",
        )
    if folders:
        return None
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return Recognised(
            "a PyTorch file that was unpacked and packed again in another way",
            "download the file again and leave it packed",
        )
    models = [name for name in names if name.lower().endswith(_MODEL_SUFFIXES)]
    if models:
        return Recognised(f"a zip archive that holds {few(models)}", "unpack it and use what is inside")
    return Recognised("a zip archive without a model in it", "check that it is the right file")


def _trained(path: Path, start: bytes) -> Recognised | None:
    """What else a training writes, by the keys in it."""
    keys = _keys(path, start)
    if b"optimizers" in keys and b"schedulers" in keys:
        return Recognised(
            "the state of a training (its optimizers and schedulers), without a network",
            "use the network that was saved with it, such as net_g_5000.pth in the folder models beside",
        )
    by_norm = (b"weight_orig" in keys and b"weight_u" in keys) or b"parametrizations.weight.original" in keys
    if by_norm or (keys and path.name.lower().startswith("net_d")):
        return Recognised(
            f"a discriminator, by its {'spectral norms' if by_norm else 'name'}: the part of a training that judges "
            "pictures and makes none",
            "use the generator of the same training, such as net_g_5000.pth or .safetensors",
        )
    return None


def _keys(path: Path, start: bytes) -> bytes:
    """Bytes in which the keys of a state dict are, among others."""
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
            with archive.open(pickled) as file:
                return file.read(_PICKLE_AT_MOST)
    if start.startswith(_TORCH_PICKLE):
        with open(path, "rb") as file:
            return file.read(_PICKLE_AT_MOST)
    if start[8:9] == b"{":
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _PICKLE_AT_MOST)))
        return "\n".join(map(str, header)).encode() if isinstance(header, dict) else b""
    return b""
