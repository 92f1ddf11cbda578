"""Run folders as the core leaves them, for tests that need no training."""

import json

import nibabel
import numpy as np

LINES = {"L_a": 1.07, "L_b": 1.06, "L_c": 0.71, "L_c_unseen": 0.88}
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
AFFINE = np.eye(4)  # oblique, RAS
AFFINE[:3, :3], AFFINE[:3, 3] = TURN * (1.4, 1.6, 2.5), (-20.0, 12.0, 5.0)
SHAPE = (14, 12, 10)


class RunFiles:
    """A run folder that grows as one of a real run does.

    Args:
        command: "pretrain" or "finetune".
        steps: planned.
    """

    def __init__(self, folder, command="pretrain", steps=100):
        self.folder, self.command, self.steps, self.time = folder, command, steps, 1000.0
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "report").mkdir()
        self.write("config.json", {"version": 1, "command": command, "train": {"steps": steps}})
        if command == "pretrain":
            self.write("collapse_lines.json", LINES)
        self.send("status", text="Training.")

    def write(self, name, data):
        (self.folder / name).write_text(json.dumps(data), encoding="utf-8")

    def send(self, kind, /, **fields):
        self.time += 1
        with open(self.folder / "events.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"v": 1, "type": kind, "time": self.time, **fields}) + "\n")

    def step(self, number, loss):
        values = {"reconstruction": loss} if self.command == "pretrain" else {}
        self.send("metric", step=number, split="train", loss=loss + 0.1, **values)
        self.send(
            "progress", done=number, total=self.steps, unit="step", text="", rate=2.0,
            seconds_left=(self.steps - number) / 2,
        )  # fmt: skip

    def validate(self, number, **values):
        self.send("metric", step=number, split="validation", **values)

    def validate_pretraining(self, number, loss, variance=0.4, ranks=(0.7, 0.6, 0.5)):
        self.validate(number, reconstruction=loss, output_variance=variance, rank_ratio=list(ranks))

    def preview(self, step, kinds, shift=0.0, case="subject-1", modalities=("T1", "FLAIR")):
        """Volumes of known content: modality m, kind k has ``100 m + 10 k + shift`` at its first voxel."""
        folder = self.folder / "preview"
        folder.mkdir(exist_ok=True)
        files = {}
        for k, kind in enumerate(kinds):
            labels = kind in ("reference", "prediction")
            names = [""] if kinds[0] == "image" else list(modalities)
            for m, modality in enumerate(names):
                file = folder / ("_".join(filter(None, (kind, modality))) + ".nii.gz")
                values = np.zeros(SHAPE) if labels else np.random.default_rng(m).normal(size=SHAPE)
                values[0, 0, 0] = 100 * m + 10 * k + shift
                dtype = np.int16 if labels else np.float32
                nibabel.save(nibabel.Nifti1Image(values.astype(dtype), AFFINE), file)
                if modality:
                    files.setdefault(kind, {})[modality] = str(file)
                else:
                    files[kind] = str(file)
        name = "segmentation_volumes" if kinds[0] == "image" else "reconstruction_volumes"
        self.send("preview", path=str(folder), kind=name, files=files, case=case, step=step)
