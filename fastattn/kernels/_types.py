"""The arrays that kernels take and give."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
CuSeqlens = npt.NDArray[np.int32]
