"""
What is known of each kind of host: where it lives, its Python, its models, its own ways with a model file.

One record a kind; several records share an id where one application comes in several layouts. A new host is one more
record, and nothing else, unless it notes its place in a configuration file of a form of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .configuration import (
    CHAINNER,
    COMFY_DESKTOP,
    COMFYUI_DESKTOP_1,
    INVOKEAI_LAUNCHER,
    KRITA,
    SWARMUI_BACKENDS,
    Configuration,
)
from .system import Platform

Systems = tuple[Platform, ...]

_ALL: Systems = ("windows", "macos", "linux")
_VENVS = ("venv", ".venv", "env")


@dataclass(frozen=True)
class Kind:
    """
    A kind of host, as its installer lays it out.

    Paths are relative to the folder that the host lives in, with ``/`` on every system, and may hold ``*``.

    Attributes:
        id, name: for people and scripts; hosts of one id are told apart by a number.
        markers: sets of paths; a folder that holds all paths of one of them is a host of this kind. No ``*`` in their
            first parts.
        environments: folders that may hold its Python, the likeliest first.
        vendored: where it carries a spandrel of its own, instead of one in a Python.
        models: folders for upscale models, the likeliest first; empty if any place will do or none does.
        models_by: how else a model reaches it.
        more_models: files that name more of such folders, as ``System.places`` takes them.
        model_options: options of its program that name one, each with what is below it there, or that name a file as
            ``more_models`` are (``*.yaml``).
        chosen_in: where in it a model that it found is chosen.
        places: where it usually lives, as ``System.places`` takes them.
        called: what its folder is usually called, where its place is up to the user.
        named: what the folder's name holds, where files alone do not tell it from a similar kind.
        systems: where it exists.
        configurations: files that tell where it lives.
        scripts: the programs that its Python runs.
        flags: those of Python's options that it is started with and that decide what is imported, unless a file that
            starts it or a running process says otherwise.
        suffixes: of the model files that it lists.
        reader: whether it reads a pickle by spandrel's own unpickler or by torch's ``weights_only``.
        archive_rule: a pattern for the names inside a ``.pth`` archive that it accepts; empty if it does not look.
        channels: in which order it feeds colours to the model.
        adapts: whether it gives a model as many channels as that takes; if not, it gives three to every one.
        half: whether it computes in half precision: never, or wherever the model supports it.
        restart: what makes it import spandrel anew.
        afterwards: what else is to be done once its spandrel loads AetherNet models.
        note: what its users have to know besides.
        usable: whether it can be given a model of the user's own.
    """

    id: str
    name: str
    markers: tuple[tuple[str, ...], ...]
    restart: str
    environments: tuple[str, ...] = _VENVS
    vendored: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    models_by: str = ""
    more_models: tuple[str, ...] = ()
    model_options: tuple[tuple[str, str], ...] = ()
    chosen_in: str = ""
    places: tuple[str, ...] = ()
    called: str = ""
    named: str = ""
    systems: Systems = _ALL
    configurations: tuple[Configuration, ...] = ()
    scripts: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = (".pth", ".pt", ".ckpt", ".safetensors")
    reader: Literal["spandrel", "weights_only"] = "spandrel"
    archive_rule: str = ""
    channels: Literal["RGB", "BGR"] = "RGB"
    adapts: bool = False
    half: Literal["never", "where supported"] = "never"
    afterwards: str = ""
    note: str = ""
    usable: bool = True

    @property
    def in_lists(self) -> str:
        """Its name without a comma, to stand among others."""
        return self.name.replace(",", "")


COMFYUI = Kind(
    id="comfyui",
    name="ComfyUI",
    markers=(
        ("main.py", "comfy", "nodes.py"),
        ("main.py", "comfy", "comfy_extras"),
        ("main.py", "nodes.py", "comfy_extras"),
        ("main.py", "models/upscale_models"),
        ("comfy", "nodes.py", "comfy_extras", "comfy_api"),
    ),
    models=("models/upscale_models",),
    more_models=("extra_model_paths.yaml",),
    model_options=(("--base-directory", "models/upscale_models"), ("--extra-model-paths-config", "*.yaml")),
    chosen_in="the node *Load Upscale Model*",
    places=("{documents}/comfy/ComfyUI", "{home}/comfy/ComfyUI"),
    called="ComfyUI",
    scripts=("main.py",),
    suffixes=(".pth", ".pt", ".safetensors", ".sft", ".ckpt", ".bin", ".pkl", ".pt2"),
    reader="weights_only",
    restart="stop main.py and start it again",
)
_STABLE_DIFFUSION_WEBUI = Kind(
    id="a1111",
    name="A1111",
    markers=(
        ("webui.py", "modules/launch_utils.py"),
        ("webui.py", "launch.py"),
        ("launch.py", "modules/launch_utils.py"),
        ("webui.py", "webui-user.sh"),
        ("webui.py", "webui-user.bat"),
    ),
    models=("models/ESRGAN",),
    model_options=(("--esrgan-models-path", "."), ("--data-dir", "models/ESRGAN"), ("--models-dir", "ESRGAN")),
    chosen_in="*Extras*, *Upscaler 1*",
    called="stable-diffusion-webui",
    scripts=("launch.py", "webui.py"),
    suffixes=(".pth", ".pt"),
    archive_rule=r"[^/]+/(data\.pkl|data/\d+|version|byteorder|\.data/serialization_id)",
    channels="BGR",
    restart="close its console and start it again; *Reload UI* is not enough",
    note="it lists no .safetensors",
)
_FORGE = replace(
    _STABLE_DIFFUSION_WEBUI,
    id="forge",
    name="Forge",
    markers=(("webui.py", "modules_forge"),),
    called="stable-diffusion-webui-forge",
    suffixes=(".pth", ".pt", ".safetensors"),
    archive_rule="",
    note="it lists .safetensors since February 2025",
)

KINDS = (
    replace(
        COMFYUI,
        name="ComfyUI, portable",
        markers=(("python_embeded", "ComfyUI/main.py"),),
        environments=("python_embeded",),
        models=("ComfyUI/models/upscale_models",),
        more_models=("ComfyUI/extra_model_paths.yaml",),
        called="ComfyUI_windows_portable",
        flags=("-s",),
        systems=("windows",),
        restart="close its console and start its .bat file again",
    ),
    replace(
        COMFYUI,
        name="Comfy Desktop",
        markers=(("standalone-env", "ComfyUI/main.py"), ("manifest.json", "ComfyUI/main.py")),
        environments=("ComfyUI/.venv", "envs/default", "ComfyUI/venv"),
        models=("../../ComfyUI-Shared/models/upscale_models", "ComfyUI/models/upscale_models"),
        more_models=("ComfyUI/extra_model_paths.yaml",),
        called="",
        places=(
            "{LOCALAPPDATA}/Comfy-Desktop/ComfyUI-Installs/*",
            "{home}/ComfyUI-Installs/*",
            "{drive}/Comfy-Desktop/ComfyUI-Installs/*",
        ),
        configurations=(COMFY_DESKTOP,),
        restart="stop the instance in Comfy Desktop and launch it again",
    ),
    COMFYUI,
    replace(
        COMFYUI,
        name="ComfyUI desktop, to 0.9",
        markers=((".venv", "uv-cache", "models", "user"), (".venv", "custom_nodes", "models", "user")),
        environments=(".venv",),
        places=("{documents}/ComfyUI",),
        more_models=("extra_model_paths.yaml", "{appdata}/ComfyUI/extra_models_config.yaml"),
        called="",
        systems=("windows", "macos"),
        configurations=(COMFYUI_DESKTOP_1,),
        restart="restart the application",
    ),
    Kind(
        id="chainner",
        name="chaiNNer",
        markers=(("settings.json", "python/python"), ("portable", "python/python")),
        environments=("python/python",),
        models_by="any folder, node *Load Model*",
        places=("{appdata}/chaiNNer",),
        configurations=(CHAINNER,),
        scripts=("run.py", "server.py", "server_host.py"),
        suffixes=(".pt", ".pth", ".ckpt", ".safetensors"),
        adapts=True,
        half="where supported",
        restart="quit chaiNNer and start it again",
        afterwards="after an update of it, start it once and quit it before it is taught again, since its first start "
        "installs the spandrel that it pins",
    ),
    replace(
        _FORGE,
        name="Forge, one-click package",
        called="webui_forge",
        markers=(("system/python", "webui/modules_forge"),),
        environments=("system/python", "webui/venv"),
        models=("webui/models/ESRGAN",),
        systems=("windows",),
        restart="close its console and start run.bat again",
    ),
    replace(_FORGE, id="reforge", name="reForge", called="stable-diffusion-webui-reForge", named="reforge"),
    _FORGE,
    replace(
        _STABLE_DIFFUSION_WEBUI,
        name="A1111, sd.webui.zip",
        called="sd.webui",
        markers=(("system/python", "webui/webui.py"),),
        environments=("system/python", "webui/venv"),
        models=("webui/models/ESRGAN",),
        systems=("windows",),
        restart="close its console and start run.bat again",
    ),
    Kind(
        id="sdnext",
        name="SD.Next",
        called="sdnext",
        markers=(("webui.py", "installer.py"), ("webui.py", "modules/upscaler_spandrel.py")),
        scripts=("launch.py", "webui.py"),
        suffixes=(),
        restart="restart its server",
        note="it cannot be given an upscale model of one's own: its Spandrel upscaler has a fixed list of models",
        usable=False,
    ),
    _STABLE_DIFFUSION_WEBUI,
    Kind(
        id="invokeai",
        name="InvokeAI",
        markers=(("invokeai.yaml",), (".venv", "databases"), (".venv/*/invokeai-web*",)),
        environments=(".venv", "venv"),
        models_by="*Models*, *Add Models*",
        chosen_in="*Upscaling*, *Upscale Model*",
        places=("{home}/invokeai", "{INVOKEAI_ROOT}"),
        configurations=(INVOKEAI_LAUNCHER,),
        scripts=("invokeai-web", "invokeai-web.exe", "run_app.py"),
        half="where supported",
        restart="stop it in the launcher and launch it again",
        afterwards="press *Reidentify* on models that it lists as *Unknown*, since they were added before",
    ),
    Kind(
        id="krita",
        name="Krita AI Diffusion",
        markers=((".version", "ComfyUI"), ("venv", "ComfyUI", "uv")),
        environments=("venv", "python"),
        models=("models/upscale_models", "ComfyUI/models/upscale_models"),
        more_models=("ComfyUI/extra_model_paths.yaml",),
        model_options=COMFYUI.model_options,
        chosen_in="the workspace *Upscale*",
        places=("{data}/krita/ai_diffusion/server", "{data}/krita-ai-diffusion/server"),
        configurations=(KRITA,),
        scripts=("main.py",),
        suffixes=COMFYUI.suffixes,
        reader="weights_only",
        restart="stop and start the server in the plugin's settings",
    ),
    Kind(
        id="swarmui",
        name="SwarmUI",
        called="SwarmUI",
        markers=(("dlbackend", "src/SwarmUI.csproj"), ("dlbackend", "Data/Backends.fds"), ("dlbackend", "Models")),
        environments=("dlbackend/comfy/python_embeded", "dlbackend/ComfyUI/venv", "dlbackend/comfy/ComfyUI/venv"),
        models=("Models/upscale_models", "Models/ESRGAN", "Models/RealESRGAN", "Models/SwinIR"),
        more_models=("dlbackend/comfy/ComfyUI/extra_model_paths.yaml", "dlbackend/ComfyUI/extra_model_paths.yaml"),
        model_options=COMFYUI.model_options,
        chosen_in="*Refine / Upscale*, *Refiner Upscale Method*",
        configurations=(SWARMUI_BACKENDS,),
        scripts=("main.py",),
        flags=("-s",),
        suffixes=COMFYUI.suffixes,
        reader="weights_only",
        restart="restart its backend under *Server*, *Backends*",
    ),
    Kind(
        id="mangajanai",
        name="MangaJaNai Converter",
        markers=(("appstate2.json", "python/python"), ("backend/python/python",)),
        environments=("python/python", "backend/python/python"),
        models=("models", "backend/models"),
        chosen_in="a chain of its workflow",
        places=("{appdata}/MangaJaNaiConverterGui",),
        systems=("windows",),
        scripts=("run_upscale.py",),
        suffixes=(".pt", ".pth", ".ckpt", ".safetensors"),
        adapts=True,
        half="where supported",
        restart="restart the application",
    ),
    Kind(
        id="vs-spandrel",
        name="vs-spandrel",
        markers=(("vsspandrel/spandrel/libs/spandrel/spandrel",),),
        environments=(),
        vendored=("vsspandrel/spandrel/libs/spandrel/spandrel",),
        models_by="any folder, in the script",
        half="where supported",
        restart="restart the program that runs the script",
    ),
    Kind(
        id="real-video-enhancer",
        name="REAL-Video-Enhancer",
        markers=(("backend/src/pytorch/spandrel",), ("backend/src/spandrel",)),
        environments=(),
        vendored=("backend/src/pytorch/spandrel", "backend/src/spandrel"),
        models_by="its list of models, by *Import*",
        scripts=("rve-backend.py",),
        half="where supported",
        restart="restart the application",
    ),
)
"""Every kind, a special layout before the general one whose markers it has too."""
