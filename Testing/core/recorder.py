"""Events that are kept, for tests that ask what was told."""

from emim.events import Events


class Recorder(Events):
    """Keeps progress as (done, total), and the texts of statuses and warnings."""

    def __init__(self):
        super().__init__()
        self.progressed, self.statuses, self.warnings = [], [], []

    def status(self, text):
        self.statuses.append(text)

    def progress(self, done, total, unit="step", text=""):
        self.progressed.append((done, total))

    def warning(self, what, where=None, hint=None):
        self.warnings.append(what)
