"""
Has the engine enlarge a picture in two threads: ``python team.py MODEL``.

What is printed is how many threads did it, and the largest difference from what the network computes by itself.
"""

from __future__ import annotations

import _thread
import sys

import spandrel
import torch
from spandrel.architectures.AetherNet.engine import infer, team

network = spandrel.ModelLoader().load_from_file(sys.argv[1]).model
rows, columns = torch.meshgrid(torch.linspace(0, 9, 200), torch.linspace(0, 7, 180), indexing="ij")
picture = torch.stack([(rows * columns).sin(), (rows + columns).cos(), (rows - 2 * columns).sin()])[None] / 2 + 0.5

threads = set()
do = team._Team._do
team._Team._do = lambda *arguments: threads.add(_thread.get_ident()) or do(*arguments)
torch.set_num_threads(2)
with torch.inference_mode():
    made = infer(network, picture)
    assert made is not None, "the engine declined"
    type(network).engine = None
    print(len(threads), (made - network(picture)).abs().max().item())
