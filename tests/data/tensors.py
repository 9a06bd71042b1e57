"""Pictures for tests of augmentation, and the two layouts that they are stored in."""

import torch

LAYOUTS = ["channels_last", "channels_first"]


def pictures(count: int, height: int = 8, width: int = 12, seed: int = 0) -> torch.Tensor:
    """uint8 [count, 3, height, width]: noise, and from the fourth on every fourth picture of few values, with a flat channel."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    images[3::4] = images[3::4] // 60 * 20 + 70
    images[7::8, 1] = 113
    return images


def stored(images: torch.Tensor, layout: str = "channels_last") -> torch.Tensor:
    return images.permute(0, 2, 3, 1).contiguous().unsqueeze(1) if layout == "channels_last" else images.unsqueeze(4)


def shown(images: torch.Tensor, layout: str = "channels_last") -> torch.Tensor:
    return images.squeeze(1).permute(0, 3, 1, 2) if layout == "channels_last" else images.squeeze(4)
