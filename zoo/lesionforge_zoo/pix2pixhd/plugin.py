"""pix2pixHD: draws images from lesion masks by a conditional adversarial network, the baseline of two of our papers.

Paper: Wang, Liu, Zhu, Tao, Kautz and Catanzaro, "High-Resolution Image Synthesis and Semantic Manipulation with
Conditional GANs", CVPR 2018 (arXiv 1711.11585). No weights are published with it; the trainer makes them from your own
images. Values that the paper leaves open, or that we chose for other images than its, are ours and say so.
"""

from __future__ import annotations

import lesionforge as lf


@lf.hookimpl
def register_plugins() -> list[type]:
    return []
