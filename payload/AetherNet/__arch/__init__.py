"""
The networks, and what reads their checkpoints; needs torch alone, and knows nothing of spandrel.

``aether_core`` and ``aether3_core`` are the two generations of the network, which training can use as they are;
``sizes`` holds the named variants and the formulas for sizes. ``generations`` is what loaders work with. It stands on

- ``checkpoint``: where a file keeps the weights, and the keys of each generation,
- ``refusals``: what looks like an AetherNet and cannot be run here,
- ``shapes``: the sizes that shapes tell,
- ``building``: the network for given weights,
- ``fusing``: several layers, or a factor and a layer, as one.
"""
