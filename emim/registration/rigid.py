"""The rigid motion between two images of one patient, whatever their contrasts.

Mutual information (Mattes) is maximised from coarse to fine by regular steps along its gradient. At
the coarsest resolution, where it costs little, the search begins at several places: as the headers
say, with the centres brought together, and from there turned about and shifted along each axis (an
image may show only a part of the head). The best few go on.

The same two images always give the same alignment: samples are drawn with a fixed seed, by one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from emim.errors import Cancelled
from emim.registration.alignment import Alignment
from emim.registration.pyramid import RESOLUTIONS, Pyramid

if TYPE_CHECKING:
    import SimpleITK as sitk

BINS = 32
SEED = 1
SAMPLES = 10_000, 30_000, 60_000  # at each resolution
KEPT = 3, 1, 1  # places the search goes on from after each resolution
TURN, SHIFT = 20.0, 30.0  # degrees, mm, of the further places where the search begins
# Beyond, the images are of different patients, or the search has failed: heads do not move so far.
MOST_SHIFT, MOST_TURN = 100.0, 45.0  # mm, degrees
# Nats. Of unrelated images the estimate is about 0.01, of two MRI of one head 0.4 and more.
LEAST_SIMILARITY = 0.03
# Less is noise of the measure: what is this little more similar was in place before.
LEAST_GAIN = 0.01  # of the similarity before
SMALL_SHIFT, SMALL_TURN = 1.0, 1.0  # mm, degrees: not worth a word when not confirmed


def align(fixed: Pyramid, moving: Pyramid, should_stop: Callable[[], bool] | None = None) -> Alignment:
    """Find where ``moving`` belongs so that it shows the same as ``fixed`` in the same place.

    Where nothing better than the headers' own place is found, or only what cannot be, the image
    stays there, and ``warning`` says why.

    Raises:
        Cancelled: when ``should_stop``, asked between the steps, said so.
    """
    search = _Search(fixed, moving)
    places = search.begin()
    for level in range(len(RESOLUTIONS)):
        found = []
        for place in places:
            if should_stop is not None and should_stop():
                raise Cancelled("The alignment was cancelled.")
            found.append(search.improve(level, place))
        found = sorted(found, key=lambda f: -f[0])[: KEPT[level]]
        places = [place for _, place in found]
    before = search.similarity(search.as_it_is())
    after = search.similarity(places[0])
    alignment = Alignment.of_motion(search.motion(places[0]), moving.centre, before, after)
    return _judged(alignment)


def _judged(found: Alignment) -> Alignment:
    """``found``, or no motion where it is not to be trusted."""
    before = found.similarity_before
    if found.similarity_after < LEAST_SIMILARITY:
        said = "The images have nothing in common in any position; the image was left in its place."
        return Alignment.none(before, said)
    moved = f"{found.translation_mm:.0f} mm and {found.rotation_deg:.0f}°"
    if found.translation_mm > MOST_SHIFT or found.rotation_deg > MOST_TURN:
        said = f"Only a motion of {moved} was found, which is not plausible; the image was left in its place."
        return Alignment.none(before, said)
    if found.similarity_after < before * (1 + LEAST_GAIN):
        small = found.translation_mm < SMALL_SHIFT and found.rotation_deg < SMALL_TURN
        said = f"A motion of {moved} did not make the images more similar; the image was left in its place."
        return Alignment.none(before, None if small else said)
    return found


class _Search:
    """Mutual information of two images as a function of a place, and its ascent.

    A place is three angles and three shifts about the fixed image's centre. Lengths are measured in
    radii of the patient, so that a step in any of the six moves the patient about as far.
    """

    def __init__(self, fixed: Pyramid, moving: Pyramid) -> None:
        self.unit = fixed.radius
        self.centre = fixed.centre / self.unit
        self.apart = (moving.centre - fixed.centre) / self.unit
        self.levels = [
            (*f.images(self.unit), m.images(self.unit)[0], f.region.mean())
            for f, m in zip(fixed.levels, moving.levels, strict=True)
        ]

    def as_it_is(self) -> sitk.Euler3DTransform:
        return self._place(np.zeros(3), np.zeros(3))

    def begin(self) -> list[sitk.Euler3DTransform]:
        axes = np.concatenate([np.eye(3), -np.eye(3)])
        return [
            self.as_it_is(),
            self._place(np.zeros(3), self.apart),
            *(self._place(math.radians(TURN) * axis, self.apart) for axis in axes),
            *(self._place(np.zeros(3), self.apart + SHIFT / self.unit * axis) for axis in axes),
        ]

    def improve(self, level: int, place: sitk.Euler3DTransform) -> tuple[float, sitk.Euler3DTransform]:
        """The best place near ``place`` at one resolution, and how good it is, to compare it with others."""
        step = RESOLUTIONS[level] / 2 / self.unit
        method = self._method(level)
        method.SetOptimizerAsRegularStepGradientDescent(step, step / 200, 200, 0.6, 1e-8)
        better = self._run(method, level, place)
        if better is None:  # the search went to where the images do not meet
            return 0.0, place
        # Few voxels are easily alike: what shows little of the patient in common counts less.
        in_common = min(1.0, method.GetMetricNumberOfValidPoints() / SAMPLES[level])
        return -method.GetMetricValue() * in_common, better

    def similarity(self, place: sitk.Euler3DTransform) -> float:
        """Mutual information in nats, at the finest resolution; 0 where the images do not meet."""
        # On samples between the voxels too: on the voxels alone, images that share a grid would seem
        # most alike as they are, because there, and only there, nothing is interpolated.
        method = self._method(-1)
        method.SetOptimizerAsExhaustive([0] * 6)  # looks at this one place
        return 0.0 if self._run(method, -1, place) is None else -method.GetMetricValue()

    def motion(self, place: sitk.Euler3DTransform) -> np.ndarray:
        """(4, 4) motion of the moving image in LPS mm; a place says where fixed points are found in it."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(place.GetMatrix(), (3, 3))
        matrix[:3, 3] = np.array(place.TransformPoint((0.0, 0.0, 0.0))) * self.unit
        return np.linalg.inv(matrix)

    def _place(self, turn: np.ndarray, shift: np.ndarray) -> sitk.Euler3DTransform:
        import SimpleITK as sitk

        return sitk.Euler3DTransform(self.centre.tolist(), *turn.tolist(), shift.tolist())

    def _method(self, level: int) -> sitk.ImageRegistrationMethod:
        import SimpleITK as sitk

        fixed, region, _, share = self.levels[level]
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricFixedMask(region)
        method.SetMetricSamplingStrategy(method.RANDOM)
        wanted = SAMPLES[level] / (share * fixed.GetNumberOfPixels())
        method.SetMetricSamplingPercentage(min(1.0, wanted), SEED)
        # The filter would smooth the gradient, which then is not that of the values compared.
        method.SetMetricUseFixedImageGradientFilter(False)
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetNumberOfWorkUnits(1)
        return method

    def _run(
        self, method: sitk.ImageRegistrationMethod, level: int, place: sitk.Euler3DTransform
    ) -> sitk.Euler3DTransform | None:
        """Where ``method`` comes to from ``place``; None where the images do not meet."""
        import SimpleITK as sitk

        fixed, _, moving, _ = self.levels[level]
        better = sitk.Euler3DTransform(place)
        method.SetInitialTransform(better, inPlace=True)
        try:
            method.Execute(fixed, moving)
        except RuntimeError:
            return None
        return better
