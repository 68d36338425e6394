"""The array types, each defined once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
CuSeqlens = NDArray[np.int32]
