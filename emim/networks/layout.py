"""In which order the axes of a network's tensors lie in memory."""

from __future__ import annotations

import torch

from emim.config import NetworkConfig


def memory_format(config: NetworkConfig, device: torch.device) -> torch.memory_format:
    """The order with which the network is fastest, in training and in inference.

    On CPUs convolutions work on blocks of 16 channels: channels that are no multiple of it are padded, which
    with channels last is not needed. Other widths gain less than normalisation loses. GPUs have not been
    measured.
    """
    padded = config.backbone == "resunet" and config.filters % 16 > 0
    return torch.channels_last_3d if device.type == "cpu" and padded else torch.contiguous_format
