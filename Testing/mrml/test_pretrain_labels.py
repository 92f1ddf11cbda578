"""Segmentations drawn in Slicer become label maps for training: exactly, on any grid, under transforms."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicerhost

slicerhost.start()
import slicer  # noqa: E402
import vtk  # noqa: E402
from EMIMPretrainLib import label_meaning  # noqa: E402
from EMIMPretrainLib.cohort_table import CaseRow, Cell, CohortTable  # noqa: E402
from EMIMPretrainLib.logic import EMIMPretrainLogic  # noqa: E402
from EMIMPretrainLib.structures import segments  # noqa: E402

from emim.cohort.folder import find_in_folder  # noqa: E402
from EMIMLib import EmimError, settings  # noqa: E402

TUMOUR = {"name": "tumour", "values": [4], "color": [230, 159, 0], "terminology": None}
CYST = {"name": "cyst", "values": [2], "color": [86, 180, 233], "terminology": None}
SIZE = (20, 18, 16)  # i, j, k

ANGLE = 0.35
OBLIQUE = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]]
) @ np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]])
GRIDS = {
    "straight": np.eye(3),
    "oblique": OBLIQUE,
    "left-handed": np.diag([-1.0, 1.0, 1.0]),
    "oblique and left-handed": OBLIQUE @ np.diag([1.0, 1.0, -1.0]),
}


def make_case(folder, direction=GRIDS["straight"], name="subject-1"):
    """A case with one image whose voxels are all different, so that any mix-up shows."""
    values = np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE[::-1])
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.5, 2.0, 3.0))
    image.SetOrigin((-11.0, 23.0, 7.0))
    image.SetDirection(np.asarray(direction).ravel().tolist())
    folder.mkdir(parents=True, exist_ok=True)
    file = str(folder / f"{name}_T1.nii.gz")
    sitk.WriteImage(image, file)
    cells = {"T1": Cell("ok", file), "T2": Cell("missing")}
    return CaseRow(name, name, cells, Cell("missing"))


def make_table(folder, *rows):
    return CohortTable(str(folder), ["T1", "T2"], rows)


def box(i, j, k):
    """A mask (K, J, I) of three ranges of the volume node's own voxels."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[slice(*k), slice(*j), slice(*i)] = True
    return mask


def draw(volume, masks):
    """A segmentation with a segment of each name, drawn on the volume's voxels."""
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawing")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask in masks.items():
        identifier = segmentation.GetSegmentation().AddEmptySegment(name, name)
        if mask.any():
            slicer.util.updateSegmentBinaryLabelmapFromArray(
                mask.astype(np.uint8), segmentation, identifier, volume
            )
    return segmentation


def move(node, volume):
    """A parent transform that turns about the volume's centre, and shifts."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    centre = np.add(bounds[::2], bounds[1::2]) / 2
    turn = vtk.vtkTransform()
    turn.Translate(centre + (4, -5, 6))
    turn.RotateZ(25)
    turn.RotateX(-10)
    turn.Translate(-centre)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(turn.GetMatrix())
    node.SetAndObserveTransformNodeID(transform.GetID())


def labels_on_image(file, row):
    """Label values by the value of the image's voxel under them, both as they lie in their files."""
    image, labels = sitk.ReadImage(row.cells["T1"].path), sitk.ReadImage(str(file))
    assert labels.GetSize() == image.GetSize()
    for read in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, read)(), getattr(image, read)(), atol=1e-4)
    values, marks = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(labels)
    return {int(v): int(m) for v, m in zip(values[marks > 0], marks[marks > 0], strict=True)}


def expected(volume, masks, values):
    """The same, from the drawing on the node."""
    array = slicer.util.arrayFromVolume(volume)
    return {int(v): values[name] for name, mask in masks.items() for v in array[mask]}


@pytest.fixture
def logic(tmp_path):
    settings.setRunsFolder(tmp_path / "läufe")
    return EMIMPretrainLogic()


@pytest.mark.parametrize("grid", GRIDS)
def test_labels_lie_on_the_voxels_of_the_image_file(logic, tmp_path, grid):
    row = make_case(tmp_path / "cohort", GRIDS[grid])
    table = make_table(tmp_path / "cohort", row)
    volume = logic.loadCase(row)[0]
    masks = {"Tumour": box((3, 7), (4, 9), (2, 6)), "cyst": box((10, 14), (2, 5), (8, 15))}
    file = logic.exportLabels(draw(volume, masks), volume, row, [TUMOUR, CYST], table)
    assert labels_on_image(file, row) == expected(volume, masks, {"Tumour": 4, "cyst": 2})


def test_labels_never_go_into_the_cohort_and_are_found_again(logic, tmp_path):
    row = make_case(tmp_path / "cohort")
    other = make_case(tmp_path / "cohort", name="subject-2")
    table = make_table(tmp_path / "cohort", row, other)
    before = sorted(p.name for p in (tmp_path / "cohort").iterdir())
    volume = logic.loadCase(row)[0]
    file = logic.exportLabels(draw(volume, {"cyst": box((1, 5), (1, 5), (1, 5))}), volume, row, [CYST], table)
    assert sorted(p.name for p in (tmp_path / "cohort").iterdir()) == before
    assert file.is_relative_to(tmp_path / "läufe")
    assert logic.exportedLabels(table) == {"subject-1": file}
    logic.removeLabels(row, table)
    assert logic.exportedLabels(table) == {}


def test_two_cohorts_of_one_name_keep_their_labels_apart(logic, tmp_path):
    tables = [make_table(tmp_path / place / "cohort") for place in ("a", "b")]
    first, second = (logic.labelsFolder(t) for t in tables)
    assert first != second
    assert logic.labelsFolder(make_table(tmp_path / "a" / "cohort")) == first


@pytest.mark.parametrize("grid", ["straight", "oblique and left-handed"])
@pytest.mark.parametrize("moved", ["both", "segmentation", "volume"])
def test_parent_transforms_are_honoured(logic, tmp_path, moved, grid):
    """What lies on a voxel in the views is labelled there, whichever node a transform has put there."""
    row = make_case(tmp_path / "cohort", GRIDS[grid])
    table = make_table(tmp_path / "cohort", row)
    volume = logic.loadCase(row)[0]
    masks = {"tumour": box((4, 12), (4, 12), (4, 12))}
    segmentation = draw(volume, masks)
    move(volume if moved == "volume" else segmentation, volume)
    if moved == "both":
        volume.SetAndObserveTransformNodeID(segmentation.GetTransformNodeID())
    file = logic.exportLabels(segmentation, volume, row, [TUMOUR], table)
    seen = seen_mask(masks["tumour"], segmentation, volume)
    marked = set(labels_on_image(file, row))
    under = set(slicer.util.arrayFromVolume(volume)[seen].tolist())
    assert 300 < len(under) <= 600
    assert len(marked ^ under) <= (0 if moved == "both" else 5)  # a centre may lie on a voxel's face


def seen_mask(mask, segmentation, volume):
    """Voxels (K, J, I) of the volume whose centres lie, in the views, in the mask drawn on its grid."""
    toLocal = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(toLocal)
    ijkToRAS = slicer.util.arrayFromVTKMatrix(toLocal)
    k, j, i = np.indices(mask.shape).reshape(3, -1)
    world = to_world(volume) @ ijkToRAS @ np.stack([i, j, k, np.ones_like(i)])
    drawn = np.linalg.inv(to_world(segmentation) @ ijkToRAS) @ world
    index = np.rint(drawn[:3]).astype(int)
    inside = ((index >= 0) & (index < np.array(SIZE)[:, None])).all(0)
    seen = np.zeros(mask.size, bool)
    seen[inside] = mask[tuple(index[::-1, inside])]
    return seen.reshape(mask.shape)


def to_world(node):
    parent = node.GetParentTransformNode()
    return np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)


def test_without_a_reference_the_first_image_counts(logic, tmp_path):
    row = make_case(tmp_path / "cohort", GRIDS["left-handed"])
    table = make_table(tmp_path / "cohort", row)
    volume = logic.loadCase(row)[0]
    masks = {"tumour": box((3, 7), (4, 9), (2, 6))}
    count = slicer.mrmlScene.GetNumberOfNodes()
    segmentation = draw(volume, masks)
    added = slicer.mrmlScene.GetNumberOfNodes()
    file = logic.exportLabels(segmentation, None, row, [TUMOUR], table)
    assert labels_on_image(file, row) == expected(volume, masks, {"tumour": 4})
    assert slicer.mrmlScene.GetNumberOfNodes() == added > count  # nothing of the export is left in the scene


@pytest.fixture
def drawn_on(logic):
    """Draws structures of these names on a case, exports them with these values, and closes the scene."""

    def export(row, table, **values):
        volume = logic.loadCase(row)[0]
        masks = {name: box((2 * n, 2 * n + 2), (3, 6), (3, 6)) for n, name in enumerate(values, start=1)}
        structures = [{**TUMOUR, "name": name, "values": [value]} for name, value in values.items()]
        file = logic.exportLabels(draw(volume, masks), volume, row, structures, table)
        slicer.mrmlScene.Clear()
        return file

    return export


def two_cases(tmp_path):
    rows = [make_case(tmp_path / "cohort", name=name) for name in ("subject-1", "subject-2")]
    return rows, make_table(tmp_path / "cohort", *rows)


def structure(name, *values):
    return {**TUMOUR, "name": name, "values": list(values)}


def test_values_keep_their_meaning_in_a_new_scene(logic, drawn_on, tmp_path):
    (first, second), table = two_cases(tmp_path)
    first.labelValues = (2, 7)  # of the cohort's own labels
    drawn_on(first, table, core=1, edema=2)
    known = logic.knownStructures(table)
    assert [(s["name"], s["values"]) for s in known] == [("core", [1]), ("edema", [2]), ("label 7", [7])]
    assert known[0] == structure("core", 1)
    volume = logic.loadCase(second)[0]
    names = ("new", "Edema", "core")
    drawing = draw(volume, {n: box((i, i + 1), (3, 6), (3, 6)) for i, n in enumerate(names)})
    structures = logic.structuresFromSegmentation(drawing, [], known)
    assert [(s["name"], s["values"]) for s in structures] == [("new", [3]), ("edema", [2]), ("core", [1])]
    logic.exportLabels(drawing, volume, second, structures, table)
    assert [s["name"] for s in logic.knownStructures(table)] == ["core", "edema", "new", "label 7"]


def test_values_of_another_meaning_are_refused(logic, drawn_on, tmp_path):
    (first, second), table = two_cases(tmp_path)
    file = drawn_on(first, table, core=1, edema=2)
    with pytest.raises(EmimError, match="case subject-1: 'edema' has the label value 2 there, and 1 in") as e:
        drawn_on(second, table, edema=1, core=2)
    assert e.value.where == str(file) and "export it again" in e.value.hint
    assert set(logic.exportedLabels(table)) == {"subject-1"}
    for start in (logic.startFinetuning, logic.estimate):
        with pytest.raises(EmimError, match="subject-1: the label value 1 is 'core' there, and 'cyst' in"):
            start(table, init="scratch", structures=[structure("cyst", 1)])
    drawn_on(first, table, edema=1, core=2)  # only its own labels had the other values
    drawn_on(second, table, edema=1, core=2)


def check_meaning(logic, table, *structures):
    """What fine-tuning and export do before they begin."""
    label_meaning.refuseOtherMeaning(structures, logic.exportedLabels(table))


@pytest.mark.parametrize(
    ("structures", "fits"),
    [
        ([("Core", 1), ("edema", 2), ("necrosis", 3)], True),
        ([("edema", 2)], True),
        ([("tumour", 1, 2)], True),  # both together
        ([("tumour", 1, 2), ("core", 1)], True),
        ([("tumour", 1, 2), ("core", 2)], False),
        ([("core", 1), ("necrosis", 2)], False),
        ([("core", 1, 2)], False),
        ([("core", 1, 5), ("edema", 2)], True),
        ([("core", 5), ("edema", 2)], False),
    ],
)
def test_meanings_that_fit_and_that_do_not(logic, drawn_on, tmp_path, structures, fits):
    (first, _second), table = two_cases(tmp_path)
    drawn_on(first, table, core=1, edema=2)
    with contextlib.nullcontext() if fits else pytest.raises(EmimError, match="do not fit"):
        check_meaning(logic, table, *(structure(*s) for s in structures))


def test_labels_that_are_not_used_or_of_earlier_versions_do_not_count(logic, drawn_on, tmp_path):
    (first, second), table = two_cases(tmp_path)
    file = drawn_on(first, table, core=1)
    first.included = False
    drawn_on(second, table, cyst=1)
    first.included = True
    assert [s["name"] for s in logic.knownStructures(table)] == ["core"]
    label_meaning.meaningFile(file).unlink()
    assert [s["name"] for s in logic.knownStructures(table)] == ["cyst"]
    drawn_on(second, table, core=2)
    check_meaning(logic, table, structure("core", 2))


def test_the_meaning_lies_beside_the_label_map_and_goes_with_it(logic, drawn_on, tmp_path):
    (first, _second), table = two_cases(tmp_path)
    file = drawn_on(first, table, core=1)
    meaning = label_meaning.meaningFile(file)
    assert sorted(file.parent.iterdir()) == sorted([file, meaning])
    assert [f.name for f in scan_folder(file.parent)] == [file.name]
    meaning.write_text("[", encoding="utf-8")
    with pytest.raises(EmimError, match="cannot be read"):
        check_meaning(logic, table, structure("core", 1))
    logic.removeLabels(first, table)
    assert list(file.parent.iterdir()) == []


def scan_folder(folder):
    """The files that a scan takes for images or labels."""
    found = find_in_folder(folder, {"T1": ["*"]})
    return [Path(p) for case in found.cases for paths in case.images.values() for p in paths]


@pytest.mark.parametrize("grid", ["straight", "oblique and left-handed"])
def test_exported_labels_are_shown_with_their_case_and_go_on_from_there(logic, tmp_path, grid):
    row = make_case(tmp_path / "cohort", GRIDS[grid])
    table = make_table(tmp_path / "cohort", row)
    own = tmp_path / "cohort" / "subject-1_seg.nii.gz"
    sitk.WriteImage(sitk.ReadImage(row.cells["T1"].path) * 0 + 3, str(own))
    row.label = Cell("ok", str(own))
    volume = logic.loadCase(row, label=logic.exportedLabels(table).get(row.id))[0]
    assert [s.GetName() for s in segments(slicer.util.getNode("subject-1 label"))] == ["label 3"]
    masks = {"core": box((5, 7), (5, 7), (5, 7)), "whole": box((3, 9), (3, 9), (3, 9))}
    structures = [structure("core", 2), structure("whole", 1, 2)]
    file = logic.exportLabels(draw(volume, masks), volume, row, structures, table)
    exported = labels_on_image(file, row)
    slicer.mrmlScene.Clear()  # another day
    volume = logic.loadCase(row, structures=[structure("cyst", 2)], label=file)[0]
    (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert {s.GetName() for s in segments(segmentation)} == set(masks)
    for name, mask in masks.items():
        identifier = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        shown = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, volume)
        np.testing.assert_array_equal(shown > 0, mask)
    logic.loadCase(row, label=file)
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1
    again = logic.exportLabels(segmentation, None, row, logic.knownStructures(table), table)
    assert labels_on_image(again, row) == exported


def test_only_the_label_map_of_another_drawing_is_replaced(logic, tmp_path):
    (row, other), table = two_cases(tmp_path)
    volume = logic.loadCase(row)[0]
    mine, yours = (draw(volume, {"tumour": box((3, 5), (3, 5), (3, n))}) for n in (5, 6))
    assert logic.replacedLabels(mine, row, table) is None  # there is no file yet
    file = logic.exportLabels(mine, volume, row, [TUMOUR], table)
    assert logic.replacedLabels(mine, row, table) is None
    assert logic.replacedLabels(yours, row, table) == file
    assert logic.replacedLabels(yours, other, table) is None
    logic.loadCase(row, label=file)
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2  # mine is what the file holds
    logic.exportLabels(yours, volume, row, [TUMOUR], table)
    assert logic.replacedLabels(mine, row, table) == file
    slicer.mrmlScene.Clear()
    logic.loadCase(row, label=file)
    loaded = slicer.util.getNode("subject-1 label")
    assert logic.replacedLabels(loaded, row, table) is None
    logic.removeLabels(row, table)
    assert logic.replacedLabels(loaded, row, table) is None


def test_exclusive_structures_must_not_overlap(logic, tmp_path):
    row = make_case(tmp_path / "cohort")
    table = make_table(tmp_path / "cohort", row)
    volume = logic.loadCase(row)[0]
    masks = {"tumour": box((3, 9), (3, 9), (3, 9)), "cyst": box((8, 12), (3, 9), (3, 9))}
    with pytest.raises(EmimError, match="overlap in 36 voxels"):
        logic.exportLabels(draw(volume, masks), volume, row, [TUMOUR, CYST], table)
    assert logic.exportedLabels(table) == {}


def test_nested_structures_are_painted_larger_first(logic, tmp_path):
    row = make_case(tmp_path / "cohort")
    table = make_table(tmp_path / "cohort", row)
    volume = logic.loadCase(row)[0]
    whole = {"name": "whole", "values": [1, 2], "color": [0, 0, 0], "terminology": None}
    core = {"name": "core", "values": [2], "color": [0, 0, 0], "terminology": None}
    masks = {"core": box((5, 7), (5, 7), (5, 7)), "whole": box((3, 9), (3, 9), (3, 9))}
    file = logic.exportLabels(draw(volume, masks), volume, row, [core, whole], table)
    found = labels_on_image(file, row)
    assert found == expected(
        volume, {"whole": masks["whole"], "core": masks["core"]}, {"whole": 1, "core": 2}
    )


def test_names_that_are_cut_keep_their_labels_apart(logic, tmp_path):
    long = "subject-" + 80 * "x"
    rows = [make_case(tmp_path / "cohort", name=long + end) for end in "ab"]
    table = make_table(tmp_path / "cohort", *rows)
    volume = logic.loadCase(rows[0])[0]
    drawing = draw(volume, {"tumour": box((3, 5), (3, 5), (3, 5))})
    logic.exportLabels(drawing, volume, rows[0], [TUMOUR], table)
    assert set(logic.exportedLabels(table)) == {rows[0].id}


def test_what_cannot_be_exported_is_refused_with_the_reason(logic, tmp_path):
    row, other = make_case(tmp_path / "cohort"), make_case(tmp_path / "cohort", name="subject-2")
    table = make_table(tmp_path / "cohort", row, other)
    volume = logic.loadCase(row)[0]
    drawing = draw(volume, {"tumour": box((3, 5), (3, 5), (3, 5))})
    for reference in (volume, None):
        with pytest.raises(EmimError, match="drawn on case subject-1, not on subject-2"):
            logic.exportLabels(drawing, reference, other, [TUMOUR], table)
    with pytest.raises(EmimError, match="no image of case subject-1"):
        logic.exportLabels(drawing, logic.loadCase(other)[0], row, [TUMOUR], table)
    with pytest.raises(EmimError, match="none of the structures"):
        logic.exportLabels(drawing, volume, row, [CYST], table)
    with pytest.raises(EmimError, match="marks no voxel"):
        logic.exportLabels(
            draw(volume, {"tumour": box((0, 0), (0, 0), (0, 0))}), volume, row, [TUMOUR], table
        )
    with pytest.raises(EmimError, match="no segment"):
        logic.exportLabels(draw(volume, {}), volume, row, [TUMOUR], table)
    with pytest.raises(EmimError, match="no structure yet"):
        logic.exportLabels(drawing, volume, row, [], table)


def test_structures_come_from_segments_with_colour_and_terminology(logic, tmp_path):
    row = make_case(tmp_path / "cohort")
    volume = logic.loadCase(row)[0]
    masks = {"Tumour": box((1, 3), (1, 3), (1, 3)), "oedema": box((5, 6), (1, 3), (1, 3))}
    segmentation = draw(volume, masks)
    segment = segmentation.GetSegmentation().GetSegment("oedema")
    segment.SetColor(0.2, 0.4, 0.6)
    text = "Segmentation category~SCT^49755003^Morphologically Altered Structure~SCT^79654002^Edema~^^~~^^~^^"
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), text)
    structures = logic.structuresFromSegmentation(segmentation, [TUMOUR, {**CYST, "values": [1]}])
    assert [s["name"] for s in structures] == ["tumour", "cyst", "oedema"]
    assert structures[2] == {"name": "oedema", "values": [2], "color": [51, 102, 153], "terminology": text}
    node = logic.getParameterNode()
    logic.setStructures(node, structures)
    assert logic.structures(node) == structures


@pytest.mark.parametrize(
    ("structures", "reason"),
    [
        ([], "no structure yet"),
        ([{**TUMOUR, "name": " "}], "no name"),
        ([{**TUMOUR, "values": [0]}], "whole numbers"),
        ([TUMOUR, {**TUMOUR, "values": [5]}], "Two structures are named"),
        ([TUMOUR, {**CYST, "values": [4]}], "same label values"),
        ([TUMOUR, CYST], ""),
    ],
)
def test_structures_that_cannot_be_trained_are_named(logic, structures, reason):
    problem = logic.structuresProblem(structures)
    assert reason in problem
    assert bool(problem) == bool(reason)


def test_a_case_is_loaded_once_with_its_label_as_a_segmentation(logic, tmp_path):
    row = make_case(tmp_path / "cohort", GRIDS["oblique"])
    image = sitk.ReadImage(row.cells["T1"].path)
    label = sitk.Cast((image > 100) & (image < 300), sitk.sitkUInt8) * 4
    label += sitk.Cast(image > 4000, sitk.sitkUInt8) * 2
    file = str(tmp_path / "cohort" / "subject-1_seg.nii.gz")
    sitk.WriteImage(label, file)
    row.label = Cell("ok", file)
    nodes = logic.loadCase(row, structures=[TUMOUR])
    assert [n.GetName() for n in nodes] == ["subject-1 T1"]
    segmentation = slicer.util.getNode("subject-1 label")
    segments = segmentation.GetSegmentation()
    assert {segments.GetNthSegment(n).GetName() for n in range(2)} == {"tumour", "label 2"}
    identifier = segments.GetSegmentIdBySegmentName("tumour")
    assert segments.GetSegment(identifier).GetColor() == pytest.approx([230 / 255, 159 / 255, 0])
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, identifier, nodes[0])
    array = slicer.util.arrayFromVolume(nodes[0])
    np.testing.assert_array_equal(mask > 0, (array > 100) & (array < 300))
    named = [TUMOUR, {**CYST, "name": "label 2"}]
    exported = logic.exportLabels(segmentation, nodes[0], row, named, make_table(tmp_path / "cohort", row))
    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(f))) for f in (exported, file)))
    count = slicer.mrmlScene.GetNumberOfNodes()
    assert logic.loadCase(row) == nodes
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    for view in ("Red", "Yellow", "Green"):
        composite = slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceCompositeNode")
        assert composite.GetBackgroundVolumeID() == nodes[0].GetID()
