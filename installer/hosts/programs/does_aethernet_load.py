"""
Loads a small AetherNet of each form through this interpreter's spandrel; the one argument is the folder it must be in.

Prints ``yes`` and exits with 0 if both are detected and loaded as what they are.
"""

import sys

if sys.path[:1] == [""]:
    # The current folder, in which a module of any name may lie.
    del sys.path[0]

import os

import spandrel


def main(folder: str) -> None:
    imported = os.path.dirname(os.path.abspath(spandrel.__file__))
    if os.path.realpath(imported) != os.path.realpath(folder):
        raise SystemExit("this interpreter imports spandrel from %s, not from %s" % (imported, folder))

    from spandrel.architectures.AetherNet import aether

    for form, fused in (("AetherNet-Unfused", False), ("AetherNet-Fused", True)):
        weights = aether(embed_dim=4, depths=(1,), upscale=2, fused_init=fused).state_dict()
        detected = spandrel.ModelLoader().load_from_state_dict(weights).architecture.id
        if detected != form:
            raise SystemExit("spandrel takes %s for %s" % (form, detected))
    print("yes")


if __name__ == "__main__":
    main(sys.argv[1])
