"""How many features frozen encoders give, so that learners can be built for them where their weights are not there."""

from mambacl.tasks.config import ConfigError, nearest
from mambacl.tasks.images_config import FrozenConfig

WIDTHS = {
    "efficientnet_lite0": 1280,
    "torchvision/resnet18": 512,
    "torchvision/resnet34": 512,
    "torchvision/resnet50": 2048,
    "torchvision/resnet101": 2048,
    "torchvision/resnet152": 2048,
    "torchvision/wide_resnet50_2": 2048,
    "torchvision/resnext50_32x4d": 2048,
    "torchvision/densenet121": 1024,
    "torchvision/mobilenet_v2": 1280,
    "torchvision/mobilenet_v3_small": 576,
    "torchvision/mobilenet_v3_large": 960,
    "torchvision/efficientnet_b0": 1280,
    "torchvision/efficientnet_b4": 1792,
    "torchvision/efficientnet_v2_s": 1280,
    "torchvision/convnext_tiny": 768,
    "torchvision/convnext_small": 768,
    "torchvision/convnext_base": 1024,
    "torchvision/convnext_large": 1536,
    "torchvision/swin_t": 768,
    "torchvision/swin_s": 768,
    "torchvision/swin_b": 1024,
    "torchvision/vit_b_16": 768,
    "torchvision/vit_b_32": 768,
    "torchvision/vit_l_16": 1024,
    "torchvision/vit_l_32": 1024,
    "torchvision/vit_h_14": 1280,
    "timm/resnet18": 512,
    "timm/resnet50": 2048,
    "timm/convnext_tiny": 768,
    "timm/convnext_base": 1024,
    "timm/vit_tiny_patch16_224": 192,
    "timm/vit_small_patch16_224": 384,
    "timm/vit_base_patch16_224": 768,
    "timm/vit_large_patch16_224": 1024,
    "timm/vit_small_patch14_dinov2": 384,
    "timm/vit_base_patch14_dinov2": 768,
    "timm/vit_large_patch14_dinov2": 1024,
    "timm/vit_giant_patch14_dinov2": 1536,
    "open_clip/RN50": 1024,
    "open_clip/RN101": 512,
    "open_clip/RN50x4": 640,
    "open_clip/RN50x16": 768,
    "open_clip/RN50x64": 1024,
    "open_clip/ViT-B-32": 512,
    "open_clip/ViT-B-16": 512,
    "open_clip/ViT-L-14": 768,
    "open_clip/ViT-L-14-336": 768,
    "open_clip/ViT-H-14": 1024,
    "open_clip/ViT-g-14": 1024,
    "open_clip/ViT-bigG-14": 1280,
}


def width_of(config: FrozenConfig) -> int:
    """The length of an encoder's feature vectors. Raises ConfigError where it is not known."""
    # timm adds the kind of weights to a name, open_clip the kind of activation: neither changes the width.
    name = config.frozen.partition(".")[0].removesuffix("-quickgelu")
    if name not in WIDTHS:
        raise ConfigError(
            f"task.encoder.frozen: the width of {config.frozen!r} is not known{nearest(name, list(WIDTHS))}; "
            f"allowed without data: {', '.join(WIDTHS)}"
        )
    return WIDTHS[name]
