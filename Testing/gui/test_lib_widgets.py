"""EMIMLib on the host: jobs, log pane, error display, installation section, settings."""

import gc
import logging
import os
import sys
import textwrap
import time
import types
from pathlib import Path

import pytest
import slicerhost

slicerhost.start()
import ctk  # noqa: E402
import qt  # noqa: E402
import SampleData  # noqa: E402
import slicer  # noqa: E402

from emim.errors import Cancelled, EmimError  # noqa: E402
from EMIMLib import dependencies, error_display, installer, sample_data, settings, support_report  # noqa: E402
from EMIMLib.folder_edit import FolderEdit  # noqa: E402
from EMIMLib.installation_section import InstallationSection  # noqa: E402
from EMIMLib.job import Job  # noqa: E402
from EMIMLib.log_pane import LogPane, duration  # noqa: E402
from EMIMLib.path_edit import followPath, rememberPath  # noqa: E402
from EMIMLib.worker import Worker  # noqa: E402

HEADER = """\
import json, sys, time
def say(kind, **fields): print(json.dumps({"type": kind, **fields}), flush=True)
"""


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    monkeypatch.setenv("EMIM_LOGS", str(tmp_path / "logs"))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Make ``python -m emim`` be a script."""

    def make(body):
        script = tmp_path / "python"
        script.write_text(f"#!{sys.executable}\n{HEADER}{textwrap.dedent(body)}")
        script.chmod(0o755)
        monkeypatch.setenv("EMIM_PYTHON", str(script))

    return make


@pytest.fixture
def shown(monkeypatch):
    """Popups are allowed; each is kept in this list instead of being shown."""
    errors = []
    slicer.app.setTesting(False)
    monkeypatch.setattr(qt.QDialog, "exec_", lambda dialog: errors.append(dialog))
    monkeypatch.setattr(qt.QDialog, "deleteLater", lambda dialog: None)
    yield errors
    slicer.app.setTesting(True)


def texts(widget):
    return [label.text.replace("\u200b", "") for label in widget.findChildren(qt.QLabel)]


def button(widget, text):
    return next(b for b in widget.findChildren(qt.QPushButton) if b.text == text)


# ---- jobs ----------------------------------------------------------------------------------------


def test_job_runs_in_the_background(host, fake):
    fake("say('status', text='one'); time.sleep(0.3); say('status', text='two'); say('result', n=7)")
    events, ends = [], []
    Job(Worker(["scan"]), lambda e: events.append(e["type"]), ends.append).start()
    gc.collect()  # nobody here holds the job
    assert host.processEvents(10, until=lambda: ends)
    host.processEvents(0.4)
    (job,) = ends  # exactly once
    assert events == ["status", "status", "result"] and job.result == {"n": 7}
    assert not job.running and job.error is None and not job.cancelled
    assert Job._alive == set()


def test_failed_job_tells_its_error(host, fake):
    fake("say('error', what='No cases.', where='/a', hint='Look.'); sys.exit(2)")
    ends = []
    job = Job(Worker(["scan"]), onFinished=ends.append)
    job.start()
    assert host.processEvents(10, until=lambda: ends)
    assert job.error.what == "No cases." and job.result is None


def test_hanging_job_is_cancelled_within_three_seconds(host, fake):
    fake("say('status', text='on'); time.sleep(60)")
    events, ends = [], []
    job = Job(Worker(["pretrain"]), events.append, ends.append)
    job.start()
    assert host.processEvents(10, until=lambda: events)
    start = time.monotonic()
    job.cancel()
    assert host.processEvents(3, until=lambda: ends) and time.monotonic() - start < 3
    assert job.cancelled and job.error is None


def test_waiting_keeps_the_application_alive(host, fake):
    fake("time.sleep(0.5); say('result', n=1)")
    ticks, ends = [], []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: ticks.append(1))
    timer.start(20)
    job = Job(Worker(["scan"]), onFinished=ends.append)
    job.start()
    assert job.waitForFinished() == {"n": 1} and ends == [job] and len(ticks) > 5
    timer.stop()


def test_waiting_raises(host, fake):
    fake("sys.exit(3)")
    job = Job(Worker(["scan"]))
    job.start()
    with pytest.raises(Cancelled):
        job.waitForFinished()


def test_job_that_cannot_start_is_not_running(host, monkeypatch, tmp_path):
    monkeypatch.setenv("EMIM_PYTHON", str(tmp_path / "none"))
    job = Job(Worker(["scan"]), onFinished=pytest.fail)
    with pytest.raises(EmimError):
        job.start()
    assert not job.running


def test_failing_callbacks_are_shown_once_and_the_job_goes_on(host, fake, shown, caplog):
    fake("[say('status', text=str(i)) for i in range(5)]; say('result', n=1)")
    ends = []

    def onFinished(job):
        ends.append(job)
        raise ValueError("at the end")

    Job(Worker(["scan"]), lambda e: {}[e["type"]], onFinished).start()
    with caplog.at_level(logging.ERROR):
        assert host.processEvents(10, until=lambda: ends)
        host.processEvents(0.2)
    assert len(ends) == 1 and ends[0].result == {"n": 1}
    assert len(shown) == 2  # of six failing events only the first, and the end
    assert any("KeyError" in t for t in texts(shown[0])) and any("at the end" in t for t in texts(shown[1]))
    assert "status" in caplog.text


def test_callback_that_runs_the_event_loop_is_not_entered_again(host, fake):
    fake("[say('status', text=str(i)) for i in range(3)]; say('result')")
    order, ends = [], []

    def slow(event):
        order.append("in")
        host.processEvents(0.25)  # longer than the timer's interval, as a message box would
        order.append("out")

    Job(Worker(["scan"]), slow, ends.append).start()
    assert host.processEvents(10, until=lambda: ends)
    assert order == ["in", "out"] * 4 and len(ends) == 1


def test_abandoned_job_ends_silently(host, fake):
    fake("say('status', text='on'); sys.stdin.read()")
    events = []
    job = Job(Worker(["scan"]), events.append, pytest.fail)
    job.start()
    assert host.processEvents(10, until=lambda: events)
    job.abandon()
    assert host.processEvents(5, until=lambda: not job.running)


def test_quitting_stops_what_does_not_survive(host, fake):
    fake("say('status', text='on'); time.sleep(60)")
    started = []
    dying, surviving = Worker(["scan"]), Worker(["pretrain"], survivesSlicer=True)
    for worker in (dying, surviving):
        Job(worker, started.append, pytest.fail).start()
    assert host.processEvents(10, until=lambda: len(started) == 2)
    start = time.monotonic()
    host.app.aboutToQuit.emit()
    assert time.monotonic() - start < 3
    assert dying.cancelled and surviving.running and Job._alive == set()
    os.kill(surviving.pid, 0)  # there
    surviving.kill()
    surviving.poll()


# ---- log pane --------------------------------------------------------------------------------------


def test_log_pane(host):
    pane = LogPane()
    pane.setVisible(False)
    pane.start("Segmenting")
    assert pane.visible and pane.progressBar.maximum == 0  # nobody knows yet how long
    pane.handle({"type": "status", "text": "Reading T1"})
    pane.handle({"type": "progress", "done": 3, "total": 12, "text": "Tiles", "seconds_left": 130.0})
    assert pane.statusLabel.text == "Tiles"
    assert pane.progressBar.value / pane.progressBar.maximum == pytest.approx(0.25)
    assert pane.progressBar.format == "3 of 12, 2 min left"
    pane.handle({"type": "progress", "done": 12, "total": 12, "text": "", "seconds_left": 0})
    assert pane.progressBar.format == "12 of 12"
    pane.handle({"type": "progress", "done": 0, "total": 0, "seconds_left": None})
    assert pane.progressBar.maximum == 0
    pane.handle({"type": "warning", "what": "T2 is missing.", "where": None, "hint": "Fine."})
    pane.handle({"type": "log", "text": "a library\nchats"})
    for odd in ({}, {"type": "metric", "step": 1}, {"type": "preview"}, {"type": "progress", "done": None}):
        pane.handle(odd)
    pane.finish(True, "Done.")
    assert pane.statusLabel.text == "Done." and pane.logButton.collapsed
    pane.copyButton.click()
    for part in ("Segmenting", "Reading T1", "Warning: T2 is missing.", "hint:  Fine.", "chats", "Done."):
        assert part in pane.text and part in qt.QApplication.clipboard().text()
    pane.start("Again")
    assert pane.text == "Again"
    pane.finish(False, "Failed.")
    assert not pane.logButton.collapsed  # the log is what one wants to see now
    pane.clear()
    assert pane.text == "" and pane.statusLabel.text == ""


def test_log_pane_survives_a_flood(host):
    pane = LogPane()
    for _ in range(20):
        pane.handle({"type": "log", "text": "x\n" * 1_000_000})
    assert len(pane.text) < 100_000


def test_duration():
    assert [duration(s) for s in (0, -1, 59.6, 40, 150, 3600, 5400, 90000)] == [
        "0 s",
        "0 s",
        "1 min",
        "40 s",
        "2 min",
        "1 h",
        "1 h 30 min",
        "1 d 1 h",
    ]


def test_long_paths_do_not_widen_anything(host):
    path = "/" + "/".join("a" * 30 for _ in range(20))
    pane = LogPane()
    pane.start(f"Reading {path}")
    assert pane.minimumSizeHint().width() < 300
    dialog = error_display.errorDialog(EmimError("Cannot be read.", path, "Check the rights."))
    assert dialog.sizeHint().width() < 700
    assert "Check the rights." in texts(dialog)[-1]


# ---- errors ----------------------------------------------------------------------------------------


def test_error_window(host, shown, tmp_path):
    error = EmimError("T1 and FLAIR do not overlap.", "<b>flair</b>.nii", "Align them.")
    error_display.showError(error, "the log\n" * 3)
    (dialog,) = shown
    assert "T1 and FLAIR do not overlap." in texts(dialog)
    assert "<b>flair</b>.nii\n\nAlign them." in texts(dialog)
    for label in dialog.findChildren(qt.QLabel):
        assert not label.text or label.textFormat == qt.Qt.PlainText
    button(dialog, "Copy").click()
    for part in ("do not overlap", "<b>flair</b>.nii", "Align them.", "the log"):
        assert part in qt.QApplication.clipboard().text()
    host.grabPanel(dialog, tmp_path / "error.png")
    assert (tmp_path / "error.png").stat().st_size > 1000


def test_unexpected_error_asks_for_a_report(shown):
    try:
        {}["key"]
    except KeyError as error:
        error_display.showError(error, "x" * 100_000)
    (dialog,) = shown
    assert any("defect of EMIM" in t for t in texts(dialog))
    (details,) = dialog.findChildren(qt.QPlainTextEdit)
    assert "Traceback" in details.plainText and len(details.plainText) < 30_000


def test_cancelling_is_no_error(shown):
    error_display.showError(Cancelled("Stopped."))
    assert shown == []


def test_error_never_blocks_a_test_or_a_script(monkeypatch, caplog):
    monkeypatch.setattr(qt.QDialog, "exec_", lambda dialog: pytest.fail("a popup"))
    with caplog.at_level(logging.ERROR):
        error_display.showError(EmimError("What happened.", "where", "hint"))
        slicer.app.setTesting(False)
        with monkeypatch.context() as noWindow:
            noWindow.setattr(slicer.util, "mainWindow", lambda: None)
            error_display.showError(EmimError("In a script.", None, None))
    slicer.app.setTesting(True)
    assert "What happened." in caplog.text and "In a script." in caplog.text


# ---- settings, folders -----------------------------------------------------------------------------


def test_settings_are_kept_by_the_machine_not_the_scene(tmp_path):
    assert settings.modelsFolder() == Path.home() / "EMIM" / "models"
    assert settings.runsFolder() == Path.home() / "EMIM" / "runs"
    assert settings.cacheFolder() is None and settings.device() == "auto"
    settings.setModelsFolder(tmp_path / "Mödels 体")
    settings.setRunsFolder(str(tmp_path / "runs"))
    settings.setCacheFolder(tmp_path)
    settings.setDevice("cuda:1")
    slicer.mrmlScene.Clear()
    assert settings.modelsFolder() == tmp_path / "Mödels 体" and settings.runsFolder() == tmp_path / "runs"
    assert settings.cacheFolder() == tmp_path and settings.device() == "cuda:1"
    settings.setCacheFolder(None)
    assert settings.cacheFolder() is None


def test_folder_edit(monkeypatch, tmp_path):
    chosen, opened = [], []
    edit = FolderEdit(tmp_path, chosen.append, "Where things lie")
    assert edit.line.text == str(tmp_path)

    def typed(text):
        edit.line.text = text
        edit.line.editingFinished.emit()
        return edit.line.text

    assert typed(str(tmp_path)) == str(tmp_path) and chosen == []  # unchanged
    assert typed("  ") == str(tmp_path) and typed("models") == str(tmp_path) and chosen == []
    assert typed(str(tmp_path / "new")) == str(tmp_path / "new") and chosen == [tmp_path / "new"]
    typed("~/Büro")
    assert chosen[-1] == Path.home() / "Büro"
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path / "browsed"))
    edit.browseButton.click()
    assert chosen[-1] == tmp_path / "browsed" and edit.line.text == str(tmp_path / "browsed")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *a: "")
    edit.browseButton.click()
    assert len(chosen) == 3
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    edit.openButton.click()
    assert opened == [str(tmp_path / "browsed")] and (tmp_path / "browsed").is_dir()


# ---- installation ------------------------------------------------------------------------------------


def section(onChanged=None):
    panel = qt.QWidget()
    found = InstallationSection(qt.QVBoxLayout(panel), onChanged)
    found.panel = panel  # keeps the widgets alive
    return found


def lacking(monkeypatch, *names):
    absent = [dependencies.Requirement(name, ">=1") for name in names]
    monkeypatch.setattr(dependencies, "missing", lambda: list(absent))
    return absent


def test_section_says_what_is_missing(monkeypatch):
    lacking(monkeypatch)
    found = section()
    assert found.statusLabel.text.startswith("Everything is installed") and not found.installButton.enabled
    lacking(monkeypatch, "monai", "tqdm")
    found.update()
    assert found.statusLabel.text == "Missing: monai>=1, tqdm>=1" and found.installButton.enabled


def test_section_installs(monkeypatch, shown):
    absent, changes = lacking(monkeypatch, "monai"), []
    monkeypatch.setattr(installer.SlicerInstaller, "confirm", lambda self, text: True)
    monkeypatch.setattr(installer.SlicerInstaller, "installPackages", lambda self, r, c: absent.clear())
    found = section(lambda: changes.append(1))
    found.installButton.click()
    assert found.statusLabel.text.startswith("Everything is installed") and changes == [1] and shown == []


def test_section_shows_why_it_failed(monkeypatch, shown):
    lacking(monkeypatch, "torch")
    monkeypatch.setattr(installer.SlicerInstaller, "confirm", lambda self, text: True)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)  # the extension is not there
    found = section()
    found.installButton.click()
    assert any("“PyTorch” is not installed" in t for t in texts(shown[0]))
    assert any("Extensions Manager" in t for t in texts(shown[0])) and found.installButton.enabled


def test_section_changes_folders(tmp_path):
    changes = []
    found = section(lambda: changes.append(1))
    edits = {"m": found.modelsEdit, "r": found.runsEdit, "c": found.cacheEdit}
    for edit, folder in ((edit, tmp_path / name) for name, edit in edits.items()):
        edit.line.text = str(folder)
        edit.line.editingFinished.emit()
    assert settings.modelsFolder() == tmp_path / "m" and settings.runsFolder() == tmp_path / "r"
    assert settings.cacheFolder() == tmp_path / "c"
    assert changes == [1, 1]


def test_section_checks_with_the_real_worker(host, tmp_path):
    found = section()
    found.checkButton.click()
    assert not found.checkButton.enabled
    assert host.processEvents(120, until=lambda: found.checkButton.enabled)
    report = found.reportText.plainText
    for part in ("EMIM ", "Slicer ", "Qt ", "torch ", "Models ", "GiB free", "not made yet", "cpu_count"):
        assert part in report
    assert "The test worker failed" not in report and "No failed worker" in report
    assert "cases and files" in found.reportText.toolTip
    found.copyButton.click()
    assert qt.QApplication.clipboard().text() == report
    host.grabPanel(found.panel, tmp_path / "installation.png", (460, 600))


def test_report_of_a_broken_installation(fake):
    fake("import no_such_library")
    worker = support_report.infoWorker()
    with pytest.raises(EmimError):
        worker.wait(pump=slicer.app.processEvents, timeout=120)
    report = support_report.composeReport(worker)
    assert "The test worker failed:" in report and "No module named 'no_such_library'" in report
    assert "Last log: " in report and "may name cases" in report


def test_section_cleanup_stops_the_check(host, fake):
    fake("time.sleep(60)")
    found = section()
    found.checkButton.click()
    job = found._job
    found.cleanup()
    assert host.processEvents(3, until=lambda: not job.running)


def test_every_control_has_a_tooltip(shown):
    error_display.showError(EmimError("What."))
    kinds = (qt.QAbstractButton, qt.QLineEdit, qt.QPlainTextEdit, qt.QProgressBar)
    for widget in (LogPane(), section().panel, shown[0]):
        for kind in kinds:
            for control in widget.findChildren(kind):
                assert control.toolTip or control.parent().toolTip, control


class Torch:
    """Stands in for the PyTorch extension."""

    calls = []

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation, torchVersionRequirement):
            Torch.calls.append((askConfirmation, torchVersionRequirement))


def test_installer_uses_the_pytorch_extension(monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", Torch)
    installer.SlicerInstaller().installTorch(">=2.5")
    assert Torch.calls == [(False, ">=2.5")]


@pytest.mark.parametrize("version", ["5.12", "5.10"])
def test_installer_uses_what_slicer_has(monkeypatch, version):
    calls = []

    def ensure(requirements, constraints, **options):
        wanted = [f"{r.name}{r.specifier}" for r in requirements]  # Slicer takes no texts
        calls.append((wanted, Path(constraints).read_text(), options))

    def install(arguments):
        calls.append((arguments[:-2], Path(arguments[-1]).read_text(), {}))
        assert arguments[-2] == "-c"

    if version == "5.12":
        module = types.SimpleNamespace(pip_ensure=ensure)
        monkeypatch.setattr(slicer.util, "pip_install", pytest.fail)
    else:
        module = None
        monkeypatch.setattr(slicer.util, "pip_install", install)
    monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    installer.SlicerInstaller().installPackages(["monai>=1.5.1"], ["numpy===2.4.6"])
    ((requirements, constraints, options),) = calls
    assert requirements == ["monai>=1.5.1"] and constraints == "numpy===2.4.6\n"
    assert not options or (options["prompt_install"], options["prompt_restart"]) == (False, False)


def test_paths_of_last_time_are_offered_and_not_filled_in():
    def line():
        edit, told = ctk.ctkPathLineEdit(), []
        edit.settingKey = "Probe"
        followPath(edit, told.append)
        return edit, told

    edit, told = line()
    for path in ("/a", "/b", "/a"):
        edit.currentPath = path
        rememberPath(edit)
    assert edit.currentPath == "/a" and told == ["/a", "/b", "/a"], "told of what the user chose only"
    again, told = line()
    offered = again.findChild(qt.QComboBox)
    assert again.currentPath == "" and not told
    assert [offered.itemText(i) for i in range(offered.count)] == ["/a", "/b"]
    again.currentPath = ""
    assert not told


def test_installer_asks_nobody_in_tests(host, monkeypatch):
    assert not installer.SlicerInstaller().canAsk()
    slicer.app.setTesting(False)
    asker = installer.SlicerInstaller()
    assert asker.canAsk()
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *a, **k: "scipy" in text)
    before = host.restarts
    asker.offerRestart(["scipy"])
    slicer.app.setTesting(True)
    assert host.restarts == before + 1


def test_failing_practice_case_says_why(host, monkeypatch):
    """Slicer's Sample Data module only prints the exception."""
    shown = []
    monkeypatch.setattr(error_display, "showError", shown.append)
    monkeypatch.setattr(dependencies, "missing", lambda: [dependencies.Requirement("monai", ">=1.5.1")])
    sample_data.register("")
    with pytest.raises(EmimError, match="monai"):
        SampleData.downloadSample(sample_data.NAME)
    assert len(shown) == 1
