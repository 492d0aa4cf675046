"""The real command line on small parts of the embedded data."""

from pathlib import Path

from tasks.__main__ import main

FASHION = "configs/image_classification/fashion_mnist.yaml"
SCENES = "configs/segmentation/scenes.yaml"
SPEECHES = "configs/language_modeling/state_of_the_union.yaml"
SMALL = {
    FASHION: ["--data.variant.examples", "300"],
    SCENES: ["--data.train", "30", "--data.val", "10", "--data.test", "10", "--data.canvas", "32"],
    SPEECHES: ["--data.variant.examples", "200", "--data.min_freq", "200"],
}


def fit(root: Path, config: str, *flags: str) -> int:
    """Return the status of a fit on a small part of a config's data."""
    small = ["--trainer.default_root_dir", str(root), "--progress.show", "false", *SMALL[config]]
    return main(["fit", "--config", config, *small, "--trainer.accelerator", "cpu", *flags])


def only(root: Path, name: str) -> Path:
    """Return the one file of this name in a run directory."""
    (found,) = root.glob(f"*/*/{name}")
    return found
