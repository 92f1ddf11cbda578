"""Walks through the README's first steps in both panels, with the real worker, and takes its pictures.

python Testing/tutorial.py --out pictures [--pretrain-steps 300] [--finetune-steps 200]

Takes some fifteen minutes on two cores. The pictures in Resources/Screenshots are made so; the data are
synthetic heads, the windows those of the test host (see README.md here).
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT)]

MINUTE = 60.0
SIZE = (1500, 1250)


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    import slicerhost

    host = slicerhost.start()
    from EMIMLib import settings

    with tempfile.TemporaryDirectory(prefix="emim-tutorial-") as folder:
        work = options.work or Path(folder)
        settings.setRunsFolder(work / "runs")
        settings.setModelsFolder(work / "models")
        settings.setCacheFolder(work / "cache")
        settings.setDevice("cpu")
        train(host, options)
        segment(host, options)


def train(host, options) -> None:
    """Practice cohort, pre-training, fine-tuning, install."""
    import slicer

    widget = host.enter(host.loadModule(ROOT / "EMIMPretrain" / "EMIMPretrain.py"))
    ui, state = widget.ui, widget.state
    ui.practiceButton.click()
    wait(host, 5 * MINUTE, lambda: state.table is not None and state.task is None)

    ui.stepsSpinBox.value = options.pretrain_steps
    ui.runNameLineEdit.text = "practice"
    ui.startPretrainButton.click()
    wait(host, 60 * MINUTE, lambda: state.monitor is not None and state.monitor.phase in ENDED)
    expect(state.monitor.phase == "finished", state.monitor.error)
    host.processEvents(1.0)
    watch(host, widget, options)

    ui.finetuneCollapsibleButton.collapsed = False
    ui.finetuneStepsSpinBox.value = options.finetune_steps
    ui.modelNameLineEdit.text = "Practice tumour"
    for row, name in enumerate(("Core", "Oedema", "Enhancing tumour")):
        ui.structuresTable.item(row, 0).setText(name)
    expect(ui.startFinetuneButton.enabled, ui.startFinetuneButton.toolTip)
    ui.startFinetuneButton.click()
    wait(host, 60 * MINUTE, lambda: state.monitor.command == "finetune" and state.monitor.phase in ENDED)
    expect(state.monitor.phase == "finished", state.monitor.error)
    host.processEvents(1.0)
    ui.installModelButton.click()
    host.screenshot(options.out / "EMIMPretrain-finetuned.png", size=SIZE)
    slicer.mrmlScene.Clear()


def watch(host, widget, options) -> None:
    """Loss plot, reconstruction and verdict of the run that is shown."""
    ui = widget.ui
    ui.showLossButton.click()
    modalities = [ui.previewModalityComboBox.itemText(i) for i in range(ui.previewModalityComboBox.count)]
    ui.previewModalityComboBox.setCurrentIndex(modalities.index("T2"))
    ui.showPreviewButton.click()
    ui.pretrainCollapsibleButton.collapsed = True
    host.processEvents(1.0)
    host.screenshot(options.out / "EMIMPretrain.png", size=SIZE)
    print("verdict:", ui.verdictLabel.text)


def segment(host, options) -> None:
    """The practice case, on four grids, segmented with that model."""
    from EMIMLib.sample_data import loadPracticeCase

    widget = host.enter(host.loadModule(ROOT / "EMIMSegment" / "EMIMSegment.py"))
    loadPracticeCase()
    host.processEvents(1.0)
    expect(widget.ui.applyButton.enabled, widget.ui.applyButton.toolTip)
    widget.ui.referenceComboBox.setCurrentIndex(0)
    widget.ui.applyButton.click()
    wait(host, 20 * MINUTE, lambda: widget.state.job is None)
    run = widget.logic.run
    expect(run.error is None, run.error)
    host.processEvents(1.0)
    host.screenshot(options.out / "EMIMSegment.png", size=SIZE)
    print(run.summary)


ENDED = ("finished", "failed", "paused")


def wait(host, seconds, until) -> None:
    expect(host.processEvents(seconds, until=until), "it took too long")


def expect(fine, otherwise) -> None:
    if not fine:
        raise SystemExit(f"The tutorial failed: {otherwise}")


def _options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--work", type=Path, help="folder for runs and models; default: a temporary one")
    parser.add_argument("--pretrain-steps", type=int, default=300)
    parser.add_argument("--finetune-steps", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
