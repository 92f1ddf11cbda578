"""The question that is asked before what a person drew is replaced."""

from __future__ import annotations

import logging

import qt
import slicer
from slicer.i18n import tr as _

REPLACE, NEW, CANCEL = "replace", "new", "cancel"


def askToReplace(segmentation) -> str:
    """Ask what is to become of the segments of a node: ``replace``, ``new`` or ``cancel``.

    In testing mode nobody is asked and nothing lost: ``new``.
    """
    text = _(
        "“{name}” was edited since EMIM wrote it, or holds segments that EMIM did not write.\n\n"
        "Replace all of its segments by the result, or put the result into a new segmentation?"
    ).format(name=segmentation.GetName())
    if slicer.app.testingEnabled():
        logging.info("Testing mode: %s is not asked, the result becomes a new segmentation", text)
        return NEW
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.windowTitle = "EMIM Segment"
    box.setIcon(qt.QMessageBox.Question)
    box.textFormat = qt.Qt.PlainText  # a name may look like HTML
    box.text = text
    replace = box.addButton(_("Replace"), qt.QMessageBox.DestructiveRole)
    new = box.addButton(_("New segmentation"), qt.QMessageBox.AcceptRole)
    box.addButton(_("Cancel"), qt.QMessageBox.RejectRole)
    box.setDefaultButton(new)
    box.exec_()
    clicked = box.clickedButton()
    box.deleteLater()
    if clicked == replace:
        return REPLACE
    return NEW if clicked == new else CANCEL
