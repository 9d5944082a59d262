"""
Runs a small AetherNet of each architecture through this interpreter's spandrel; the one argument is the folder it must
be in.

Prints ``yes`` and exits with 0 if each is detected as what it is, loaded, and makes of a picture what the same network
in another form makes of it. Which architectures there are, and what a small network of each is, says the payload.
"""

import sys

if sys.path[:1] == [""]:
    # The current folder, in which a module of any name may lie.
    del sys.path[0]

import os
from typing import Dict, Tuple

import spandrel
import torch

_TOLERANCE = 1e-4
"""Of the largest value: what adding up in another order may cost in float32."""


def main(folder: str) -> None:
    imported = os.path.dirname(os.path.abspath(spandrel.__file__))
    if os.path.realpath(imported) != os.path.realpath(folder):
        raise SystemExit("this interpreter imports spandrel from %s, not from %s" % (imported, folder))

    from spandrel.architectures.AetherNet import ARCHITECTURES

    picture = torch.linspace(0, 1, 3 * 17 * 14).reshape(1, 3, 17, 14).cos()
    first: Dict[type, Tuple[str, torch.Tensor]] = {}
    for architecture in ARCHITECTURES:
        expected = architecture()
        descriptor = spandrel.ModelLoader().load_from_state_dict(expected.sample())
        if descriptor.architecture.id != expected.id:
            raise SystemExit("spandrel takes %s for %s" % (expected.id, descriptor.architecture.id))
        for recording in (False, True):
            # Unless gradients are recorded, short cuts are taken. The model's own output is not clamped to [0, 1].
            with torch.set_grad_enabled(recording):
                output = descriptor.model(picture).detach()
            if not torch.isfinite(output).all():
                raise SystemExit("%s makes numbers of a picture that are not finite" % expected.id)
            # Forms of one network are loaded as one class.
            name, reference = first.setdefault(type(descriptor.model), (expected.id, output))
            difference = float((output - reference).abs().max() / reference.abs().max())
            if not difference <= _TOLERANCE:
                raise SystemExit(
                    "%s and %s are one network and make different pictures: they differ by %.1e of the largest value"
                    % (name, expected.id, difference)
                )
    print("yes")


if __name__ == "__main__":
    main(sys.argv[1])
