"""Builds lesionforge: the repository root is the import package, CMake makes its native module.

Metadata and tool settings are in pyproject.toml; here is what they cannot express.
The native module is optional: without a working compiler everything runs on the reference kernels.
LESIONFORGE_REQUIRE_NATIVE=1 makes a failed native build fail the installation. Where nvcc is found, the library of CUDA
kernels comes with the module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
ROOMS = ("core", "plugins", "kernels", "cli")

# Our own plugins, registered exactly as a stranger's are: name = module that holds its hookimpls.
PLUGINS = {
    "phantom": "plugins.data.phantom",
    "real-masks": "plugins.data.real_masks",
    "class-plan": "plugins.data.class_plan",
    "folders": "plugins.data.folders",
    "isic": "plugins.data.isic",
    "exporters": "plugins.data.exporters",
    "captions": "plugins.captions.plugin",
    "ddpm": "plugins.ddpm.plugin",
    "didgen": "plugins.didgen.plugin",
    "skindualgen": "plugins.skindualgen.plugin",
    "lesion-masks": "plugins.promptcontrol.lesion_masks",
    "promptcontrol": "plugins.promptcontrol.plugin",
    "segmentation": "plugins.segmentation.plugin",
    "classification": "plugins.classification.plugin",
    "latent-diffusion": "plugins.stable_diffusion.latent_diffusion.plugin",
    "fine-tuning": "plugins.stable_diffusion.fine_tuning.plugin",
    "quality": "plugins.quality.plugin",
    "extractors": "plugins.quality.extractors",
    "kernels": "kernels.diagnostics",
}


CUDA_LIBRARY = "lesionforge_cuda.dll" if os.name == "nt" else "liblesionforge_cuda.so"


class CMakeBuild(build_ext):
    """Builds `lesionforge._native` and the CUDA kernels with CMake and Ninja from CMakeLists.txt."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        # What older sources made must not outlive a failed build.
        for name in (target.name, CUDA_LIBRARY):
            (target.parent / name).unlink(missing_ok=True)
            if self.editable_mode:
                (ROOT / name).unlink(missing_ok=True)
        try:
            self._build_native(target)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            # setuptools forgives an optional extension only this class of error.
            raise CompileError(f"{ext.name}: {error}") from error
        try:
            cmake_install(ROOT / "kernels" / "csrc" / "cuda", target.parent)
        except subprocess.CalledProcessError as error:
            print(f"No CUDA kernels: {error}", file=sys.stderr)

    def _build_native(self, target: Path) -> None:
        import pybind11

        pybind11_dir = pybind11.get_cmake_dir()
        cmake_install(ROOT, target.parent, f"-Dpybind11_DIR={pybind11_dir}", f"-DPython_EXECUTABLE={sys.executable}")
        if not target.exists():
            raise FileNotFoundError(f"the build made no {target.name}")

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        (extension,) = self.extensions
        library = Path(self.build_lib, *self.get_ext_fullname(extension.name).split(".")[:-1], CUDA_LIBRARY)
        if library.exists():
            shutil.copy(library, ROOT)


def cmake_install(source: Path, target: Path, *options: str) -> None:
    """Configures, builds and installs the CMake project in `source` into the folder `target`."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise FileNotFoundError("cmake is not on PATH")
    # An own folder each time: CMake's cache would remember tools of an isolated build that is gone.
    with tempfile.TemporaryDirectory(prefix="lesionforge-cmake-") as build:
        configure = [cmake, "-S", str(source), "-B", build, "-DCMAKE_BUILD_TYPE=Release", *options]
        if shutil.which("ninja"):
            configure += ["-G", "Ninja"]
        subprocess.run(configure, check=True)
        subprocess.run([cmake, "--build", build, "--config", "Release", "--parallel", "2"], check=True)
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run([cmake, "--install", build, "--prefix", str(target)], check=True)


def native_is_required() -> bool:
    return os.environ.get("LESIONFORGE_REQUIRE_NATIVE", "0") not in ("", "0")


setup(
    script_name="setup.py",  # by this name build_py knows which file of the root is not the package's
    package_dir={"lesionforge": "."},
    packages=["lesionforge"]
    + [f"lesionforge.{name}" for name in find_packages(include=[p for room in ROOMS for p in (room, f"{room}.*")])],
    package_data={
        "lesionforge": ["py.typed", "recipes/**/*.toml", "checkpoints/**/*"],
        "lesionforge.core.report": ["*.html", "*.css", "*.js"],
        "lesionforge.core.study": ["*.html", "*.css"],
        "lesionforge.plugins.stable_diffusion": ["clip_vocabulary/*"],
    },
    ext_modules=[Extension("lesionforge._native", sources=[], optional=not native_is_required())],
    cmdclass={"build_ext": CMakeBuild},
    entry_points={
        "console_scripts": ["lesionforge = lesionforge.cli.main:main"],
        "lesionforge": [f"{name} = lesionforge.{module}" for name, module in PLUGINS.items()],
    },
)
