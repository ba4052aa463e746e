"""Puts the newest version of the default model into the wheel; all else is in pyproject.toml."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

MODEL = Path(__file__).parent / "models" / "lung-unet"
FILES = ("model.onnx", "contract.json", "golden.npz", "CARD.md")


class BuildWithModel(build_py):
    """Copies a model beside the modules, where ``lungseg.packaged`` looks for it."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # run from the checkout, which has the models itself
            return
        newest = max(MODEL.glob("[1-9]*"), key=lambda folder: int(folder.name))
        target = Path(self.build_lib) / "lungseg" / "models" / MODEL.name / newest.name
        self.mkpath(str(target))
        for name in FILES:
            copyfile(newest / name, target / name)
        copyfile(MODEL.parent / "LICENSE", target.parents[1] / "LICENSE")


setup(cmdclass={"build_py": BuildWithModel})
