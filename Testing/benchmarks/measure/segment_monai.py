"""The other side of ../segment_speed.py: how a MONAI user applies the same network to the same files.

Load, z-score the non-zero voxels as in training (tails left out, clipped), orient, resample to the model's
spacing, slide over the whole field with MONAI's inferer, take the labels, write a NIfTI file. Network,
weights, tile and overlap are those of the package; nothing is cropped, the memory allocator and memory
format are the defaults.
"""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    Invertd,
    Lambdad,
    LoadImaged,
    Orientationd,
    Spacingd,
)

from emim.package.bundle import read_package
from measure.monai_network import monai_network


def z_score(image, clip: float):
    """Mean and deviation of the non-zero values between the 0.5th and 99.5th percentile become 0 and 1."""
    values = image.numpy()
    inside = values != 0
    low, high = np.percentile(values[inside], (0.5, 99.5))
    middle = values[inside & (values >= low) & (values <= high)]
    scaled = np.clip((values - middle.mean()) / middle.std(), -clip, clip)
    image.set_array(np.where(inside, scaled, 0).astype(np.float32))
    return image


def main(model: str, output: str, overlap: float, batch: int, files: dict[str, str]) -> None:
    package = read_package(model)
    card = package.card
    keys = list(card.modalities)
    load = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Lambdad(keys, lambda image: z_score(image, card.preprocess.clip)),
            Orientationd(keys, axcodes="LPS"),
            Spacingd(keys, pixdim=card.preprocess.spacing, mode="bilinear"),
            ConcatItemsd(keys, name="image"),
        ]
    )
    data = load(files)
    network = monai_network(package)
    # MONAI's arrays are (X, Y, Z); the network was trained on (Z, Y, X).
    image = data["image"].permute(0, 3, 2, 1)[None].as_tensor()
    with torch.no_grad():
        logits = sliding_window_inference(image, card.crop, batch, network, overlap, mode="gaussian")
    data["pred"] = data["image"].clone()
    data["pred"].set_array(
        (logits[0].sigmoid() if card.overlapping else logits[0].softmax(0)).permute(0, 3, 2, 1)
    )
    back = Invertd("pred", transform=load, orig_keys=keys[0], nearest_interp=False, to_tensor=True)
    probability = back(data)["pred"].numpy()
    label = np.zeros(probability.shape[1:], np.uint8)
    if card.overlapping:
        for structure, channel in zip(card.structures, probability, strict=True):
            label[channel >= 0.5] = structure.output
    else:
        values = np.array([0, *(s.output for s in card.structures)], np.uint8)
        label = values[probability.argmax(0)]
    nib.save(nib.Nifti1Image(label, nib.load(files[keys[0]]).affine), output)


if __name__ == "__main__":
    files = dict(a.split("=", 1) for a in sys.argv[5:])
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), files)
