"""Saves a picture of a module's panel and views, without Slicer and without a screen.

python Testing/slicerhost/show.py EMIMSegment --out picture.png
python Testing/slicerhost/show.py EMIMSegment --scene case.mrb --model models/glioma --out picture.png
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "Testing")  # in place of this folder, whose files are no modules of their own


def main():
    options = _options()
    import slicerhost

    host = slicerhost.start()
    import slicer

    module = host.loadModule(ROOT / options.module / f"{options.module}.py")
    if options.model:
        _install(options.model)
    if options.scene:
        slicer.util.loadScene(str(options.scene))
    for volume in options.volume:
        slicer.util.loadVolume(str(volume))
    widget = host.enter(module)
    host.processEvents(options.seconds)
    if options.panel_only:
        host.grabPanel(widget, options.out, None)
    else:
        host.screenshot(options.out, size=options.size)
    module.cleanup()
    print(options.out)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("module", choices=("EMIMPretrain", "EMIMSegment"))
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    parser.add_argument("--scene", type=Path, help="a .mrb or .mrml file to load")
    parser.add_argument(
        "--volume", type=Path, action="append", default=[], help="a volume to load; repeatable"
    )
    parser.add_argument("--model", type=Path, help="a model package to install (in a temporary folder)")
    parser.add_argument("--panel-only", action="store_true", help="the whole panel, without the views")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the panel may work first")
    parser.add_argument("--size", type=_size, default=(1400, 900), help="width x height, default 1400x900")
    return parser.parse_args()


def _size(text):
    width, height = text.lower().split("x")
    return int(width), int(height)


def _install(model):
    """Puts the model into an empty models folder, which only this process uses."""
    import slicer

    import EMIMLib.models
    import EMIMLib.settings

    EMIMLib.settings.setModelsFolder(Path(slicer.app.temporaryPath) / "models")
    EMIMLib.models.ModelRegistry().import_(model)


if __name__ == "__main__":
    main()
