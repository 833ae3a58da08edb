"""Allocations that no machine can make: of 10^17 bytes or more, where programs can address at most 2^56, 7 x 10^16."""

import numpy as np
import torch

TOO_LARGE = {
    "bytes of Python": lambda: bytearray(10**17),
    "list of Python": lambda: [None] * 10**17,
    "text of Python": lambda: "x" * 10**17,
    "array of numpy": lambda: np.empty(10**17, np.uint8),
    "copy of numpy": lambda: np.broadcast_to(np.float32(1), (10**9, 10**8)).copy(),
    "sum of numpy": lambda: np.zeros((10**5, 1)) + np.broadcast_to(np.zeros(1), 10**12),
    "tensor of torch": lambda: torch.empty(10**17, dtype=torch.uint8),
    "copy of torch": lambda: torch.ones(1).expand(10**9, 10**8).clone(),
    "product of torch": lambda: torch.ones(10**5, 1) @ torch.ones(1).expand(1, 10**12),
}
