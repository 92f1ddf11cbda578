"""Another side of ../segment_speed.py: nnU-Net's own prediction, from files to a file, with the same network.

nnU-Net reads, crops to non-zero, normalises, resamples (its default), slides its window over the box with
Gaussian weights, resamples the logits back and writes. Mirroring, its default, is off, since it would take
eight times as long; the network, weights, spacing, tile and overlap are those of the package.
"""

from __future__ import annotations

import copy
import sys

import torch

from emim.package.bundle import read_package


def main(model: str, output: str, overlap: float, files: dict[str, str]) -> None:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from measure.monai_network import monai_network
    from measure.nnunet import plans_of

    package = read_package(model)
    card = package.card
    plans = plans_of(len(card.modalities), card.preprocess.spacing[::-1], card.crop)
    configuration = plans["configurations"]["3d_fullres"]
    configuration["resampling_fn_probabilities"] = configuration["resampling_fn_data"]
    configuration["resampling_fn_probabilities_kwargs"] = {
        **configuration["resampling_fn_data_kwargs"], "order": 1,
    }  # fmt: skip
    description = {"channel_names": dict(enumerate(card.modalities)), "file_ending": ".nii.gz"}
    if card.overlapping:
        description["labels"] = {"background": 0, **{s.name: list(s.values) for s in card.structures}}
        description["regions_class_order"] = [s.output for s in card.structures]
    else:
        description["labels"] = {"background": 0, **{s.name: i for i, s in enumerate(card.structures, 1)}}
    network = monai_network(package)
    predictor = nnUNetPredictor(
        tile_step_size=1 - overlap,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    manager = PlansManager(copy.deepcopy(plans))
    predictor.manual_initialization(
        network,
        manager,
        manager.get_configuration("3d_fullres"),
        [network.state_dict()],
        description,
        "",
        None,
    )
    image, properties = SimpleITKIO().read_images([files[m] for m in card.modalities])
    predictor.predict_single_npy_array(image, properties, None, output.removesuffix(".nii.gz"))


if __name__ == "__main__":
    torch.set_num_interop_threads(1)
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), dict(a.split("=", 1) for a in sys.argv[4:]))
