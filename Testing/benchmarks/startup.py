"""How long EMIM's commands take before they do anything: medians of whole processes, and what they import.

`emim segment` is timed to its first tile on a small synthetic case (5 mm voxels), so that reading
takes next to no time; the interpreter alone is given for comparison.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure.machine import machine_line

SLOW = ("torch", "monai", "matplotlib", "scipy", "SimpleITK", "nibabel", "pandas", "PIL")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--runs", type=int, default=7)
    o = p.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="emim-startup-") as folder:
        heads = Path(folder) / "heads"
        emim = [sys.executable, "-m", "emim"]
        run([*emim, "phantom", "--out", str(heads), "--subjects", "2", "--labelled", "2", "--spacing", "5"])
        model = train(emim, heads, Path(folder) / "run")
        files = sorted((heads / "sub-001").glob("*.nii.gz"))
        inputs = [f"{f.name.split('_')[-1].split('.')[0]}={f}" for f in files if "seg" not in f.name]
        segment = [*emim, "segment", "--json", "--device", "cpu", "--model", str(model), "--overwrite"]
        segment += [
            "--output",
            str(Path(folder) / "out.nii.gz"),
            *(a for i in inputs for a in ("--input", i)),
        ]
        times: dict[str, list[float]] = {}
        for _ in range(o.runs):
            for name, command, until in (
                ("python -c pass", [sys.executable, "-c", "pass"], ""),
                ("emim --help", [*emim, "--help"], ""),
                ("emim scan (2 cases)", [*emim, "scan", str(heads)], ""),
                ("emim segment, to its first tile", segment, '"tile"'),
            ):
                times.setdefault(name, []).append(run(command, until))
        for name, seconds in times.items():
            print(f"{name:34s} median {statistics.median(seconds):6.2f} s (fastest {min(seconds):.2f})")
        for name, command in (
            ("emim --help", ["--help"]),
            ("emim scan", ["scan", str(heads)]),
            ("emim segment", segment[3:]),
        ):
            print(f"{name} imports: {', '.join(imported(command)) or 'none of ' + ', '.join(SLOW)}")


def train(emim: list[str], heads: Path, out: Path) -> Path:
    """A network of two steps, as large as the tiny preset makes it."""
    command = [*emim, "finetune", str(heads), "--init", "none", "--out", str(out), "--preset", "tiny"]
    command += ["--steps", "2", "--set", "train.crop=32", "--cache", str(out.parent / "cache")]
    run(command)
    return out / "model"


def run(command: list[str], until: str = "") -> float:
    """Seconds until the command prints a line with ``until``, else until it ends.

    Raises:
        RuntimeError: with what it printed, when it fails or never prints that.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed, reached = [], None
    for line in process.stdout:
        printed.append(line)
        if until and until in line and reached is None:
            reached = time.perf_counter() - begun
    if process.wait() or (until and reached is None):
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(printed)}")
    return time.perf_counter() - begun if reached is None else reached


def imported(arguments: list[str]) -> list[str]:
    """The slow packages that a command of EMIM has imported when it ends."""
    program = (
        "import sys\nfrom emim.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print('IMPORTED', *[m for m in {SLOW!r} if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    return output.splitlines()[-1].split()[1:]


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    main()
