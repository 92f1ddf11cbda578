"""Stand-ins for CTK's buttons, group boxes, combo boxes and message box."""

from PySide6 import QtCore, QtGui
from PySide6 import QtWidgets as W
from PySide6.QtCore import Property, Qt, Signal

from slicerhost.widget_classes import properties, stand_in

_UNLIMITED = 16777215  # QWIDGETSIZE_MAX


@stand_in
class ctkCollapsibleButton(W.QWidget):
    """A title bar with an arrow; collapsing hides the children."""

    contentsCollapsed = Signal(bool)
    clicked = Signal(bool)
    toggled = Signal(bool)
    locals().update(
        properties(
            text=(str, "", "_update"),
            collapsed=(bool, False, "_update"),
            checkable=(bool, True),
            flat=(bool, False),
            contentsFrameShape=(int, 0),
            contentsFrameShadow=(int, 0),
            contentsLineWidth=(int, 0),
            collapsedHeight=(int, 10),
        )
    )

    def __init__(self, *arguments):
        parent = arguments[-1] if arguments and isinstance(arguments[-1], W.QWidget) else None
        super().__init__(parent)
        self._shown_collapsed, self._hidden = False, []
        self._title = W.QToolButton(self)
        self._title.setAutoRaise(True)
        self._title.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self._title.clicked.connect(self.click)
        self.setContentsMargins(0, 24, 0, 0)
        self.setText(arguments[0] if arguments and isinstance(arguments[0], str) else "")

    def click(self):
        self.setCollapsed(not self.collapsed)
        self.clicked.emit(not self.collapsed)

    def _update(self):
        self._title.setText(self.text)
        self._title.setArrowType(Qt.RightArrow if self.collapsed else Qt.DownArrow)
        self.setMaximumHeight(26 if self.collapsed else _UNLIMITED)
        self._hide_or_show_children()
        if self._shown_collapsed != self.collapsed:
            self._shown_collapsed = self.collapsed
            self.contentsCollapsed.emit(self.collapsed)
            self.toggled.emit(not self.collapsed)

    def _hide_or_show_children(self):
        """As in CTK, children that the module itself has hidden stay hidden."""
        if self.collapsed:
            children = [c for c in self.children() if isinstance(c, W.QWidget) and c is not self._title]
            self._hidden += [child for child in children if not child.isHidden()]
        for child in self._hidden:
            child.setVisible(not self.collapsed)
        if not self.collapsed:
            self._hidden = []

    def resizeEvent(self, event):
        self._title.setGeometry(0, 0, self.width, 24)

    def showEvent(self, event):
        self._hide_or_show_children()  # those that came after the collapsing


@stand_in
class ctkCollapsibleGroupBox(W.QGroupBox):
    """A group box whose check box, an arrow in CTK, hides the children."""

    locals().update(properties(collapsedHeight=(int, 14)))

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._hidden_by_collapse = []
        self.setCheckable(True)
        self.toggled.connect(self._expand)

    collapsed = Property(bool, lambda self: not self.checked, lambda self, value: self.setCollapsed(value))

    def setCollapsed(self, collapsed):
        self.setChecked(not collapsed)

    def _expand(self, expanded):
        self.setMaximumHeight(_UNLIMITED if expanded else 22)
        if expanded:
            for child in self._hidden_by_collapse:
                child.setVisible(True)
            self._hidden_by_collapse = []
            return
        for child in self.children():
            if child.isWidgetType() and not child.isHidden():
                self._hidden_by_collapse.append(child)
                child.setVisible(False)

    def childEvent(self, event):
        # Not when it is added: Python would take the half-made child for a plain QWidget from then on.
        if event.polished() and self.collapsed and not event.child().isHidden():
            self._hidden_by_collapse.append(event.child())
            event.child().setVisible(False)


@stand_in
class ctkCheckBox(W.QCheckBox):
    pass


@stand_in
class ctkPushButton(W.QPushButton):
    pass


@stand_in
class ctkComboBox(W.QComboBox):
    NeverScroll, AlwaysScroll, ScrollWithFocus, ScrollWithNoVScrollBar = range(4)
    locals().update(
        properties(defaultText=(str, ""), scrollWheelEffect=(int, AlwaysScroll, "_setFocusPolicy"))
    )

    def _setFocusPolicy(self):
        focused = self.scrollWheelEffect == self.ScrollWithFocus
        self.setFocusPolicy(Qt.StrongFocus if focused else Qt.WheelFocus)

    def wheelEvent(self, event):
        if self._scrolls():
            super().wheelEvent(event)
        else:
            event.ignore()

    def _scrolls(self):
        if self.scrollWheelEffect == self.ScrollWithFocus:
            return self.hasFocus()
        if self.scrollWheelEffect == self.ScrollWithNoVScrollBar:
            return not any(area.verticalScrollBar().isVisible() for area in _scroll_areas(self))
        return self.scrollWheelEffect == self.AlwaysScroll


def _scroll_areas(widget):
    """Those that the widget lies in."""
    while widget := widget.parentWidget():
        if isinstance(widget, W.QAbstractScrollArea):
            yield widget


@stand_in
class ctkColorPickerButton(W.QPushButton):
    """A button filled with its colour."""

    colorChanged = Signal(QtGui.QColor)
    locals().update(properties(displayColorName=(bool, True, "_update")))

    def _get(self):
        return self.__dict__.get("_color", QtGui.QColor("black"))

    def setColor(self, color):
        self._color = QtGui.QColor(color)
        self._update()
        self.colorChanged.emit(self._color)

    color = Property(QtGui.QColor, _get, setColor)

    def _update(self):
        picture = QtGui.QPixmap(16, 16)
        picture.fill(self._get())
        self.setIcon(QtGui.QIcon(picture))
        self.setIconSize(QtCore.QSize(16, 16))
        self.setText(self._get().name() if self.displayColorName else "")


@stand_in
class ctkFittedTextBrowser(W.QTextBrowser):
    locals().update(
        properties(
            collapsed=(bool, False),
            collapsibleText=(str, ""),
            showDetailsText=(str, ""),
            hideDetailsText=(str, ""),
        )
    )


@stand_in
class ctkMessageBox(W.QMessageBox):
    locals().update(
        properties(
            dontShowAgainVisible=(bool, False),
            dontShowAgain=(bool, False),
            dontShowAgainSettingsKey=(str, ""),
        )
    )
