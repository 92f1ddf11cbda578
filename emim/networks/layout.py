"""In which order the axes of a network's tensors lie in memory."""

from __future__ import annotations

import torch

from emim.config import NetworkConfig


def memory_format(config: NetworkConfig, device: torch.device) -> torch.memory_format:
    """The order with which the network is fastest, in training and in inference.

    On CPUs oneDNN's convolutions are faster with channels last; where PyTorch comes without oneDNN, as for
    Apple's processors, plain memory stays. GPUs have not been measured.
    """
    one_dnn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return torch.channels_last_3d if one_dnn and config.backbone == "resunet" else torch.contiguous_format
