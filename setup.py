"""Metadata of the package; the pins are in requirements.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(file: str) -> list[str]:
    """The requirements of a file, with their markers but without pins, which are for
    installations and not for those who depend on the package."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("#")[0].strip() for line in lines]
    return [line.replace("==", ">=", 1) for line in pinned if line]


setup(
    name="whisper-serve",
    version="0.1.0",
    description="Self-hosted speech to text: FastAPI, Ray Serve and OpenAI Whisper",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["whisper_serve", "whisper_serve.*"]),
    package_data={"whisper_serve": ["py.typed", "web/*"]},
    install_requires=requirements("requirements.txt"),
    extras_require={
        "dev": requirements("requirements-dev.txt"),
        "loadtest": ["aiohttp>=3.14.5", "jiwer>=4.0.0", "locust>=2.45.0", "matplotlib>=3.10.9"],
        "mic": ["sounddevice>=0.5.6"],
    },
    entry_points={"console_scripts": ["whisper-serve = whisper_serve.cli:main"]},
    classifiers=[
        "Framework :: FastAPI",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)
