"""Reading the small real data that comes with the package (README.md: where it is from, its licences)."""

import json
import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
FASHION_MNIST, TEXTURES = "fashion_mnist.npz", "textures.npz"
STATE_OF_THE_UNION = "state_of_the_union.json.xz"
MEND = "which comes with this package, is missing or damaged: install it again"


def arrays(name: str, expected: dict[str, tuple[int, ...]], folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """Return the uint8 arrays of an embedded .npz file by name.

    Raises:
        ValueError: if it cannot be read, or has other names or shapes than expected.
    """
    path = folder / name
    try:
        with path.open("rb") as file, np.load(file) as archive:
            found = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}, {MEND}") from error
    shapes = {key: array.shape for key, array in found.items()}
    if shapes != expected:
        raise ValueError(f"{path} holds {shapes} where {expected} was expected: install this package again")
    return found


def texts(name: str, folder: Path = FOLDER) -> dict[str, str]:
    """Return the documents of an embedded .json.xz file by name, in order.

    Raises:
        ValueError: if it cannot be read.
    """
    path = folder / name
    try:
        return json.loads(lzma.decompress(path.read_bytes()))
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise ValueError(f"{path}, {MEND}") from error
