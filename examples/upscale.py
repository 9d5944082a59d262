"""
Upscales a picture through plain spandrel, tile by tile, so that the size of the picture does not matter.

    python examples/upscale.py MODEL PICTURE OUTPUT
"""

import sys

import numpy as np
import torch
from PIL import Image
from spandrel import ModelLoader

TILE, OVERLAP = 512, 48

model_path, picture, output = sys.argv[1:]
model = ModelLoader(device="cuda" if torch.cuda.is_available() else "cpu").load_from_file(model_path)
image = torch.from_numpy(np.array(Image.open(picture).convert("RGB"))).permute(2, 0, 1)[None]
scale, height, width = model.scale, *image.shape[2:]
result = torch.empty(height * scale, width * scale, 3, dtype=torch.uint8)
for y in range(0, height, TILE):
    for x in range(0, width, TILE):
        top, left = max(y - OVERLAP, 0), max(x - OVERLAP, 0)
        tile = image[..., top : y + TILE + OVERLAP, left : x + TILE + OVERLAP]
        with torch.inference_mode():
            upscaled = model(tile.to(model.device) / 255)[0].mul(255).round().byte().permute(1, 2, 0)
        result[y * scale : (y + TILE) * scale, x * scale : (x + TILE) * scale] = upscaled[
            (y - top) * scale : (y - top + TILE) * scale, (x - left) * scale : (x - left + TILE) * scale
        ].cpu()
Image.fromarray(result.numpy()).save(output)
