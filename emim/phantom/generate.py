"""Write a cohort of synthetic heads: the files a hospital would have sent, without any patient."""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import emim.phantom.scanner as scanner
from emim.errors import EmimError
from emim.events import Events
from emim.folder_content import folder_content
from emim.machine.itk_threads import prepare_itk
from emim.phantom.anatomy import REGIONS, build_head, draw_anatomy, label_regions
from emim.phantom.signal import MODALITIES, draw_protocol
from emim.replace import replace_folder

DESCRIPTION = "phantom.json"  # also the sign by which a folder of ours is known
LESIONS = ("ring", "not enhancing", "ring", "solid")  # in turn, so that small cohorts have every kind
_WRITING = threading.Lock()  # ITK's file formats are not made for several threads
CLASSES = ("multifocal", "solitary")  # kinds of lesions
CLASSES_FILE = "classes.csv"
README = """SYNTHETIC DATA: digital head phantoms made by `emim phantom`. No patient, no volunteer.

One folder a subject: sub-001/sub-001_T1.nii.gz, _T1ce, _T2, _FLAIR and, for labelled subjects, _seg.
Label values{labels}.
The anatomy is drawn from simple bodies with random deformation and folding; brightness follows the signal
equations of spin echo and inversion recovery with relaxation times from the literature. Some subjects
without label have no lesion, and some lack a modality. phantom.json says how each subject was made.

Good for trying software and for testing it. Results on these data say nothing about patients.
"""


OF_LESIONS = ", as in the BraTS data: 1 necrotic or non-enhancing core, 2 oedema, 3 enhancing tumour"
OF_REGIONS = ": " + ", ".join(f"{value} {name}" for name, value in REGIONS.items())


def generate(
    folder: str | Path,
    subjects: int = 24,
    seed: int = 0,
    labelled: int | None = None,
    spacing: float = 2.5,
    skull: bool = False,
    overwrite: bool = False,
    events: Events | None = None,
    own_grids: bool = False,
    classes: bool = False,
    regions: bool = False,
) -> Path:
    """Make ``folder`` with one sub-folder a subject, a README.txt and a phantom.json.

    Args:
        folder: where to; created.
        subjects: how many. Subject i depends on ``seed`` and i (and whether it is labelled), never on how
            many others there are.
        seed: another seed, other people.
        labelled: the first so many subjects (None: half of them) have a label map, all modalities and a
            lesion. Of the others every third lacks one or two modalities and every sixth is healthy.
        spacing: voxel size in mm. 2.5 gives about 64 x 76 x 66 voxels and a second a subject; 1 is what
            scanners do and takes some twenty times as long.
        skull: with skull and scalp, and noise in the air around them; else skull-stripped, outside 0.
        overwrite: replace a folder made by this function before.
        own_grids: every modality but T1 lies on a grid of its own: thick slices, tilted otherwise. Else
            one modality of every second subject does.
        classes: every subject has one large lesion or, as often, several small ones, and ``classes.csv``
            says which. The volumes of tumour and oedema do not differ, so a histogram of intensities
            hardly tells the classes apart.
        regions: label maps hold regions of the brain (:data:`emim.phantom.anatomy.REGIONS`), which
            intensities do not tell apart, instead of lesions. The images are the same.

    Returns:
        The folder.

    Raises:
        EmimError: when an argument is out of range, or the folder exists and is not ours to replace.
    """
    if subjects < 1 or subjects > 9999:
        raise EmimError(f"Cannot make {subjects} subjects.", "subjects", "Give a number from 1 to 9999.")
    labelled = subjects // 2 if labelled is None else labelled
    if not 0 <= labelled <= subjects:
        raise EmimError(
            f"Cannot label {labelled} of {subjects} subjects.",
            "labelled",
            f"Give a number from 0 to {subjects}.",
        )
    if not 0.5 <= spacing <= 5.0:
        raise EmimError(f"Cannot use voxels of {spacing} mm.", "spacing", "Give a size from 0.5 to 5 mm.")
    if seed < 0:
        raise EmimError(f"Cannot use the seed {seed}.", "seed", "Give a number from 0.")
    folder = Path(folder).expanduser().absolute()
    _refuse_to_destroy(folder, overwrite)

    events = events or Events()
    events.status(f"Making {subjects} synthetic heads in {folder}")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise EmimError(
            f"Cannot write here: {error.strerror}.", folder.parent, "Choose another folder."
        ) from error
    try:
        kinds = (spacing, skull, own_grids, classes, regions)
        made = _make_subjects(part, subjects, seed, labelled, *kinds, events)
        settings = {"seed": seed, "labelled": labelled, "spacing": spacing, "skull": skull}
        if regions:
            settings["regions"] = REGIONS
        if classes:
            rows = ["case,class", *(f"{m['id']},{m['lesion']}" for m in made)]
            (part / CLASSES_FILE).write_text("\n".join(rows) + "\n", encoding="utf-8")
        description = {"version": 1, "synthetic": True, **settings, "subjects": made}
        (part / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
        about = README.format(labels=OF_REGIONS if regions else OF_LESIONS)
        (part / "README.txt").write_text(about, encoding="utf-8")
        replace_folder(part, folder, aside=old)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if folder.exists():  # else the earlier one lies there
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _refuse_to_destroy(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not folder_content(folder)):
        return
    if not (folder / DESCRIPTION).is_file():
        raise EmimError("Something else is already there.", folder, "Choose another folder for the phantoms.")
    if not overwrite:
        raise EmimError(
            "These phantoms exist already.", folder, "Choose another folder, or allow to overwrite it."
        )


def _make_subjects(
    folder: Path,
    subjects: int,
    seed: int,
    labelled: int,
    spacing: float,
    skull: bool,
    own_grids: bool,
    classes: bool,
    regions: bool,
    events: Events,
) -> list[dict]:
    prepare_itk()
    # Threads suffice: NumPy and SimpleITK let go of the interpreter lock. Few, for the sake of memory.
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    made = []
    try:
        jobs = [
            pool.submit(
                _make_subject, folder, i, seed, i < labelled, spacing, skull, own_grids, classes, regions
            )
            for i in range(subjects)
        ]
        for job in jobs:
            made.append(job.result())
            events.progress(len(made), subjects, "subject", made[-1]["id"])
    finally:
        pool.shutdown(cancel_futures=True)
    return made


def _make_subject(
    folder: Path,
    i: int,
    seed: int,
    labelled: bool,
    spacing: float,
    skull: bool,
    own_grids: bool,
    classes: bool,
    regions: bool,
) -> dict:
    """Write subject ``i`` (from 0) and return what was drawn for it."""
    name = f"sub-{i + 1:03d}"
    # One stream a purpose: a skull or a missing modality does not change the brain.
    body, machine, noise = (np.random.default_rng([seed, i, purpose]) for purpose in range(3))
    healthy = not labelled and i % 6 == 5
    kind = None if healthy else LESIONS[i % len(LESIONS)]
    if classes:  # one of each in a pair, in random order: orientation and grids alternate, too
        kind = CLASSES[np.random.default_rng([seed, i // 2, 4]).permutation(2)[i % 2]]
    centre = machine.uniform(-15.0, 15.0, 3)
    anatomy = draw_anatomy(body, centre, kind)
    protocol = draw_protocol(machine)
    orientation = scanner.ORIENTATIONS[i % len(scanner.ORIENTATIONS)]
    tilt = np.radians(machine.uniform(8.0, 18.0, 3)) if orientation == "oblique" else np.zeros(3)
    margin = 35.0 if skull else 0.0
    extent = np.array([158.0, 190.0, 168.0]) + machine.uniform(-2.0, 8.0, 3) + margin
    centre_of_grid = centre + [0.0, 2.0, -5.0] + machine.uniform(-2.0, 2.0, 3)
    grid = scanner.make_grid(orientation, (spacing,) * 3, tuple(extent), centre_of_grid, tilt)
    points = scanner.world_points(grid)
    head = build_head(anatomy, points, grid.GetSpacing(), skull)
    texture = 1.0 + 0.03 * head.texture

    # Every second subject has one modality on a grid of its own: thick, tilted slices.
    own = (("FLAIR", "T2")[i // 2 % 2],) if i % 2 else ()
    own_tilt = tilt + np.radians(machine.uniform(-12.0, 12.0, 3))
    own_spacing = (0.9 * spacing, 0.9 * spacing, spacing * machine.uniform(1.8, 2.4))
    own_grid = scanner.make_grid("LPS", own_spacing, tuple(extent), centre_of_grid, own_tilt)
    grids = dict.fromkeys(own, own_grid)
    if own_grids:
        grids = _grids_of_their_own(
            np.random.default_rng([seed, i, 3]), spacing, extent, centre_of_grid, tilt
        )

    lost: set[str] = set()
    if not labelled and i % 3 == 0:
        lost = set(machine.choice(MODALITIES, size=1 + i // 3 % 2, replace=False).tolist())
    (folder / name).mkdir()
    about = f"Synthetic phantom, seed {seed}, not a patient"
    for modality in MODALITIES:
        sequence = protocol[modality]
        gain = machine.lognormal(np.log(600.0), 0.5) / sequence.signal("white matter")
        sigma = sequence.signal("white matter") * machine.uniform(0.012, 0.035)
        signal = np.zeros(points.shape[1:], np.float32)
        for tissue, cover in head.layers:
            signal += cover * (np.float32(sequence.signal(tissue)) - signal)
        signal *= texture * scanner.bias_field(machine, points, centre, machine.uniform(0.05, 0.16))
        if modality in lost:
            continue
        target, brain = grid, head.brain
        if modality in grids:
            target = grids[modality]
            signal = _onto(signal, grid, target)
            brain = _onto(head.brain.astype(np.float32), grid, target) > 0.5
        measured = scanner.add_rician_noise(noise, signal, sigma) * gain
        measured[~brain] = 0.0
        file = folder / name / f"{name}_{modality}.nii.gz"
        _write(np.clip(measured.round(), 0, 32767).astype(np.int16), target, file, about)
    if labelled:
        label = label_regions(anatomy, points, head) if regions else head.label
        _write(label, grid, folder / name / f"{name}_seg.nii.gz", about)
    return {
        "id": name,
        "lesion": kind,
        "orientation": orientation,
        "own grid": sorted(grids),
        "missing": sorted(lost),
        "sequences": {m: asdict(s) for m, s in protocol.items()},
    }


def _grids_of_their_own(
    rng: np.random.Generator, spacing: float, extent: np.ndarray, centre: np.ndarray, tilt: np.ndarray
) -> dict[str, sitk.Image]:
    """A grid for each modality but T1: another orientation, thickness, tilt and field of view."""
    grids = {}
    for modality, orientation in zip(MODALITIES[1:], ("LPS", "LAS", "RAS"), strict=True):
        thick = (0.9 * spacing, 0.9 * spacing, spacing * rng.uniform(1.5, 2.4))
        view = tuple(extent + rng.uniform(-4.0, 12.0, 3))
        own_tilt = tilt + np.radians(rng.uniform(-12.0, 12.0, 3))
        grids[modality] = scanner.make_grid(orientation, thick, view, centre, own_tilt)
    return grids


def _onto(array: np.ndarray, grid: sitk.Image, target: sitk.Image) -> np.ndarray:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    return sitk.GetArrayFromImage(scanner.resample_slices(image, target))


def _write(array: np.ndarray, grid: sitk.Image, file: Path, about: str) -> None:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(grid)
    image.SetMetaData("ITK_FileNotes", about)
    with _WRITING:
        sitk.WriteImage(image, str(file), useCompression=True, imageIO="NiftiImageIO")
