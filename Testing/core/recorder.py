"""Events that are kept, for tests that ask what was told."""

from emim.events import Events


class Recorder(Events):
    """Keeps progress as (done, total), the texts of statuses and warnings, and the ends of cases."""

    def __init__(self):
        super().__init__()
        self.progressed, self.statuses, self.warnings, self.cases = [], [], [], []

    def status(self, text):
        self.statuses.append(text)

    def progress(self, done, total, unit="step", text=""):
        self.progressed.append((done, total))

    def case(self, **fields):
        self.cases.append(fields)

    def warning(self, what, where=None, hint=None):
        self.warnings.append(what)
