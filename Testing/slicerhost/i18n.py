"""Stand-in for slicer.i18n: texts stay English."""

__all__ = ["tr", "translate"]


def tr(text):
    return text


def translate(context, text):
    return text
