"""Devices that are not here: what is chosen, set up, refused, and replaced by the CPU."""

import pytest
import torch
from torch.torch_version import TorchVersion

from emim.cli import run_command
from emim.errors import EmimError
from emim.machine.device import choose_device, open_device
from emim.machine.memory import free_memory, is_out_of_memory

NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCompile with …"
GIB = 2**30


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that seem to be there; what is asked of torch. ``broken``: how they fail."""
    asked = {"set_device": [], "fraction": [], "broken": None}
    zeros = torch.zeros

    def compute(*shape, device=None):
        if torch.device(device).type != "cpu" and asked["broken"]:
            raise RuntimeError(asked["broken"])
        return zeros(*shape)

    monkeypatch.setattr(torch, "zeros", compute)
    for name, stand_in in (
        ("is_available", lambda: True),
        ("device_count", lambda: 2),
        ("set_device", asked["set_device"].append),
        ("set_per_process_memory_fraction", asked["fraction"].append),
        ("mem_get_info", lambda device: (5 * GIB, 8 * GIB)),
        ("memory_reserved", lambda device: 2 * GIB),
        ("memory_allocated", lambda device: GIB),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return asked


def test_a_gpu_that_cannot_compute_is_passed_over_unless_it_was_asked_for(gpus, told):
    assert open_device("auto", told).type == "cuda" and not told.told
    gpus["broken"] = NO_KERNEL
    assert open_device("auto", told) == torch.device("cpu")
    assert len(told.told) == 1 and "no kernel image" in told.told[0] and "Compile" not in told.told[0]
    with pytest.raises(EmimError, match="'cuda:1' cannot compute.*no kernel image") as caught:
        open_device("cuda:1")
    assert "device cpu" in caught.value.hint


def test_ranks_do_not_compute_on_different_kinds_of_devices(gpus, monkeypatch):
    gpus["broken"] = NO_KERNEL
    monkeypatch.setattr("emim.machine.device.launched_size", lambda: 2)
    with pytest.raises(EmimError, match="cannot compute"):
        open_device("auto")


def test_a_gpu_that_was_named_is_the_one_for_all(gpus):
    assert open_device("cuda:1") == torch.device("cuda", 1)
    assert gpus["set_device"] == [torch.device("cuda", 1)] and gpus["fraction"] == []
    open_device("cuda")
    choose_device("cuda:1")
    assert len(gpus["set_device"]) == 1, "only the one that is named, and only to compute on it"


def test_windows_does_not_lend_a_gpu_the_memory_of_the_machine(gpus, monkeypatch):
    monkeypatch.setattr("emim.machine.device.sys.platform", "win32")
    open_device("cuda:0")
    assert gpus["fraction"] == [pytest.approx(7 / 8 - 0.03)]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("version", "allowed"), [(90701, True), (90800, False), (91002, False), (91500, True), (None, True)]
)
def test_convolutions_are_not_in_tf32_where_that_is_broken(gpus, told, monkeypatch, version, allowed, old):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0" if old else "2.10.0"))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    open_device("cuda", told)
    assert torch.backends.cudnn.allow_tf32 is allowed
    # PyTorch before 2.9 convolves with it, wrong or not.
    assert [("without cuDNN" in w) for w in told.told] == ([] if allowed or old else [True])


def test_apples_gpus_need_a_torch_that_can_segment_on_them(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.7.1"))
    with pytest.raises(EmimError, match="torch 2.8 or later, not 2.7.1"):
        choose_device("mps")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))
    assert choose_device("mps").type == "mps"


def test_what_apples_gpus_lack_is_computed_on_the_cpu(monkeypatch):
    import os

    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "to be restored")
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK")
    for platform, wanted in (("linux", None), ("darwin", "1")):
        monkeypatch.setattr("sys.platform", platform)
        with pytest.raises(SystemExit):
            run_command(["--version"])
        assert os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == wanted


def test_memory_that_torch_holds_and_does_not_use_is_free(gpus):
    assert free_memory(torch.device("cuda", 0)) == 6 * GIB


def test_a_full_gpu_is_known_by_its_error():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 7.64 GiB, …)."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
