"""torchvision, imported in this one place.

Its ordinary wheel beside a CPU-only torch fails at import ("operator torchvision::nms does not exist"), because its compiled
operators cannot be loaded. Nothing here uses them, so their signatures are declared and the import is repeated.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    DECLARED = torch.library.Library("torchvision", "FRAGMENT")  # the operators go when this object does
    for _name in ("nms", "qnms"):
        DECLARED.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

from torchvision import datasets, models
from torchvision.datasets.utils import download_and_extract_archive

__all__ = ["datasets", "download_and_extract_archive", "models", "torchvision"]
