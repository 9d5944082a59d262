"""
Enlarges a picture with the trained model and writes the numbers that come out: ``python picture.py MODEL OUTPUT``.

What is written on one system is to be compared with another's.
"""

from __future__ import annotations

import sys

import spandrel
import torch

model = spandrel.ModelLoader().load_from_file(sys.argv[1])
rows, columns = torch.meshgrid(torch.linspace(0, 9, 61), torch.linspace(0, 7, 83), indexing="ij")
picture = torch.stack([(rows * columns).sin(), (rows + columns).cos(), (rows - 2 * columns).sin()])[None] / 2 + 0.5
with torch.inference_mode():
    output = model(picture)
with open(sys.argv[2], "wb") as file:
    file.write(bytes(output.contiguous().flatten().view(torch.uint8).tolist()))
