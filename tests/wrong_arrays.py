"""Files of several arrays where one is due, damaged files, and arrays that no machine can make."""

import numpy as np
import torch


def _in(path, save):
    with path.open("wb") as file:  # numpy would add .npz to the name
        save(file)


def _npy_with(path, old, new):
    _in(path, lambda file: np.save(file, np.ones((3, 5))))
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


def _npy_of(path, header):
    _in(path, lambda file: np.save(file, np.ones((3, 5))))
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + len(header).to_bytes(2, "little") + header.encode() + whole[-120:])


def _npy_with_shape(path, shape):
    _npy_of(path, f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n")


NPZ = {
    "empty": lambda path: _in(path, np.savez),
    "one array": lambda path: _in(path, lambda file: np.savez(file, np.ones((3, 5)))),
    "several arrays": lambda path: _in(path, lambda file: np.savez(file, images=np.ones((3, 5)), labels=np.arange(2))),
    "compressed": lambda path: _in(path, lambda file: np.savez_compressed(file, np.ones((3, 5)))),
}
"""`NPZ[kind](path)` writes an .npz file under this name."""


def _npz_of_version(path, version):
    NPZ["one array"](path)
    before, entry, after = path.read_bytes().partition(b"PK\x01\x02")
    path.write_bytes(before + entry + after[:2] + bytes([version]) + after[3:])


DAMAGED = {
    "cut after 4 bytes": lambda path: path.write_bytes(b"PK\x03\x04"),
    "cut after 100 bytes": lambda path: (NPZ["several arrays"](path), path.write_bytes(path.read_bytes()[:100])),
    "without the end": lambda path: (NPZ["compressed"](path), path.write_bytes(path.read_bytes()[:-22])),
    "no bytes": lambda path: path.write_bytes(b""),
    "a bracket lost": lambda path: _npy_with(path, b"(3, 5)", b"(3, 5 "),
    "a quote lost": lambda path: _npy_with(path, b"'shape'", b"'shape "),
    "a letter changed": lambda path: _npy_with(path, b"'shape'", b"\0shape'"),
    "a zip archive of an unknown version": lambda path: _npz_of_version(path, 255),
    "a shape of many digits": lambda path: _npy_with_shape(path, f"({10**30},)"),
    "a shape of terabytes": lambda path: _npy_with_shape(path, f"({10**12},)"),
    "a shape of exabytes": lambda path: _npy_with_shape(path, f"({10**17},)"),
    "a shape that is no number": lambda path: _npy_with_shape(path, "(True,)"),
    "a key that is a list": lambda path: _npy_of(path, "{[]: 1}\n"),
    "a type in brackets": lambda path: _npy_of(
        path, "{'descr': ('<f8',), 'fortran_order': False, 'shape': (3, 5), }\n"
    ),
    "a nested header": lambda path: _npy_of(path, "-" * 5000 + "1\n"),
}
"""The same for .npz files that broke off, and for .npy files with a damaged header."""
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
"""Of 10^17 bytes or more; a program addresses at most 2^56, which is 7 x 10^16."""
