"""The extension as the Extensions Manager would install it: by CMake, with a stand-in for Slicer's macros."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name("slicer_stand_in")
MODULES = ("EMIMPretrain", "EMIMSegment")
LIBRARIES = ("emim", "EMIMLib")


def cmake(*arguments):
    program = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, "CMake comes with the test requirements; run `make test`."
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def configure(source, build):
    arguments = (f"-DSlicer_DIR={STAND_IN}", "-DBUILD_TESTING=ON", "-G", "Unix Makefiles")
    # Nothing is compiled: no compiler needs to be there.
    tools = [f"-DCMAKE_{tool}=/bin/true" for tool in ("MAKE_PROGRAM", "C_COMPILER", "CXX_COMPILER")]
    tools += [f"-DCMAKE_{language}_COMPILER_FORCED=TRUE" for language in ("C", "CXX")]
    return cmake("-S", source, "-B", build, *arguments, *tools)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what a build of the extension reads."""
    copy = tmp_path_factory.mktemp("source") / "EMIM"
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    copy.mkdir()
    shutil.copy(ROOT / "CMakeLists.txt", copy)
    for part in (*MODULES, *LIBRARIES, "Resources"):
        shutil.copytree(ROOT / part, copy / part, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    """The folder of scripted modules of an installed extension; a path with a space and an umlaut."""
    work = tmp_path_factory.mktemp("Installierte Müdule")
    result = configure(source, work / "build")
    assert result.returncode == 0, result.stdout + result.stderr
    result = cmake("--install", work / "build", "--prefix", work / "Slicer")
    assert result.returncode == 0, result.stdout + result.stderr
    return work / "Slicer/lib/Slicer-5.12/qt-scripted-modules"


def files(folder):
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {f for f in found if "__pycache__" not in f}


def test_everything_on_disk_is_installed(source, installed):
    expected = set()
    for library in LIBRARIES:
        expected |= {f"{library}/{f}" for f in files(source / library)}
    for module in MODULES:
        expected |= files(source / module)
    expected = {f for f in expected if not f.endswith("CMakeLists.txt")}
    assert files(installed) == expected


def test_the_lists_are_up_to_date():
    check = [sys.executable, str(ROOT / "tools/list-scripts.py"), "--check"]
    result = subprocess.run(check, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_listed_file_that_is_missing_stops_the_configuration(source, tmp_path):
    broken = tmp_path / "EMIM"
    shutil.copytree(source, broken)
    (broken / "EMIMLib/worker.py").unlink()
    result = configure(broken, tmp_path / "build")
    assert result.returncode != 0 and "worker.py" in result.stderr


def test_slicer_sees_each_module_and_nothing_else_as_one(installed):
    assert {p.stem for p in installed.glob("*.py")} == set(MODULES)
    for module in MODULES:
        assert f"class {module}(" in (installed / f"{module}.py").read_text(encoding="utf-8")


def test_the_installed_core_runs(installed, tmp_path):
    """As the modules start it: a process of its own, from the folder the extension is installed in."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "import emim, emim.__main__; print(emim.__file__)"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and str(installed) in result.stdout, result.stderr
    command = [sys.executable, "-m", "emim", "phantom", "--out", str(tmp_path / "heads"), "--subjects", "1"]
    command += ["--spacing", "5", "--json"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(result.stdout.splitlines()[-1])["type"] == "result", result.stderr


def test_the_installed_modules_load(installed, tmp_path):
    """Both panels open from the installed tree, in a process that has not seen the source tree's modules."""
    program = """
import pathlib, sys
installed, testing, picture = sys.argv[1:]
sys.path.insert(0, testing)
import slicerhost
host = slicerhost.start()
for name in ("EMIMSegment", "EMIMPretrain"):
    module = host.loadModule(str(pathlib.Path(installed) / f"{name}.py"))
    widget = host.enter(module)
    host.grabPanel(widget, f"{picture}/{name}.png", (480, 900))
    import EMIMLib, emim
    for package in (EMIMLib, emim):
        assert package.__file__.startswith(installed), package.__file__
print("loaded")
"""
    sys_path = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = {
        **sys_path,
        "QT_QPA_PLATFORM": "offscreen",
        "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(installed),
    }
    script = tmp_path / "load.py"
    script.write_text(program, encoding="utf-8")
    command = [sys.executable, str(script), str(installed), str(ROOT / "Testing"), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0 and "loaded" in result.stdout, result.stdout + result.stderr
    for name in MODULES:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(set(picture.convert("RGB").resize((120, 200)).getdata())) > 20, f"{name} is blank"


def test_the_package_carries_no_tests_and_no_weights(installed):
    assert not [f for f in files(installed) if f.endswith((".pt", ".nii.gz", ".nrrd")) or "Testing" in f]


def test_the_description_of_the_extension():
    """What the Extensions Index demands: the project's name is the entry's, one-line set() with quotes."""
    entry = json.loads((ROOT / "EMIM.json").read_text(encoding="utf-8"))
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.search(r"^project\(EMIM\)$", text, re.M)
    allowed = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies"}
    assert set(entry) <= allowed | {"build_subdirectory", "enabled", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry) and entry["tier"] in (1, 3, 5)
    fields = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"\n]+)"\)$', text, re.M))
    needed = {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"}
    assert set(fields) == needed
    assert fields["DEPENDS"].split() == entry["build_dependencies"]
    for url in [fields["ICONURL"], *fields["SCREENSHOTURLS"].split()]:
        assert (ROOT / "Resources" / url.split("/Resources/")[1]).is_file(), url


@pytest.mark.parametrize("icon", ["Resources/EMIM.png", *(f"{m}/Resources/Icons/{m}.png" for m in MODULES)])
def test_icons(icon):
    with Image.open(ROOT / icon) as image:
        assert image.size == (128, 128) and image.mode == "RGBA"


def test_the_requirements_of_the_extension_are_those_of_the_core():
    """Whatever the core imports is installed: by the PyTorch extension, by Slicer, or by our list."""
    text = (ROOT / "EMIMLib/Resources/requirements.txt").read_text(encoding="utf-8")
    names = {re.match(r"[\w-]+", line).group().lower() for line in text.splitlines() if line[:1].isalpha()}
    core = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    core = re.search(r"^dependencies = \[(.*?)\]", core, re.M | re.S).group(1)
    core = {re.match(r"[\w-]+", line).group().lower() for line in re.findall(r'"([^"]+)"', core)}
    from_slicer = {"numpy", "simpleitk", "scipy", "pillow"}
    assert core - names - from_slicer == {"torch"}
