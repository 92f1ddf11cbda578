"""Prints the system libraries that Qt and OpenGL without a screen need and that cannot be loaded (Linux)."""

import ctypes
import glob

LIBRARIES = (
    "libEGL.so.1",
    "libEGL_mesa.so.0",
    "libGL.so.1",
    "libdbus-1.so.3",
    "libfontconfig.so.1",
    "libglib-2.0.so.0",
    "libxkbcommon.so.0",
)


def missing() -> list[str]:
    names = []
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            names.append(name)
    drivers = ("dri/swrast_dri.so", "*/dri/swrast_dri.so", "libgallium*.so", "*/libgallium*.so")
    if not any(glob.glob(f"/usr/lib*/{driver}") for driver in drivers):
        names.append("swrast_dri.so (Mesa)")
    return names


if __name__ == "__main__":
    print(", ".join(missing()))
