import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import safe_open

from zoo.hub.tensors import write_tensors

COUNTED = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
ROWS = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)


def read(path):
  with safe_open(path, "np") as file:
    return {name: file.get_tensor(name) for name in file.keys()}


ARRAYS = {
  "transposed": COUNTED.T,
  "axes swapped": COUNTED.transpose(1, 0, 2),
  "Fortran order": np.asfortranarray(COUNTED),
  "strides": COUNTED[:, ::2, 1::3],
  "negative strides": COUNTED[::-1, :, ::-1],
  "a column": COUNTED[0, :, 3],
  "broadcast": np.broadcast_to(COUNTED[0, 0], (7, 5)),
  "not aligned": np.ndarray((5, 6), np.float32, b"\0" + COUNTED.tobytes(), offset=1),
  "big-endian, transposed": COUNTED.astype(">f4").T,
  "nothing in it": np.zeros((0, 3), np.float32).T,
  "nothing in the middle": COUNTED[:, 1:1].T,
  "a scalar": np.array(7.0, np.float16),
  "a scalar that is a view": COUNTED[1, 2, 3, ...],
  "bfloat16, transposed": COUNTED.astype(ml_dtypes.bfloat16).T,
  "integers": COUNTED.astype(np.int64).T,
  "booleans": (COUNTED % 2 == 0).T,
  "jax": jnp.asarray(COUNTED).T,
  "jax, bfloat16": jnp.asarray(COUNTED, jnp.bfloat16).T,
  "jax, rows on 8 devices": jax.device_put(ROWS, NamedSharding(MESH, P("data"))),
  "jax, columns on 8 devices": jax.device_put(ROWS.T, NamedSharding(MESH, P(None, "data"))),
  "jax, copies on 8 devices": jax.device_put(ROWS.T, NamedSharding(MESH, P())),
}


def test_every_array_is_read_back_as_it_was_however_its_memory_lies(tmp_path):
  path = tmp_path / "file.safetensors"
  write_tensors(path, ARRAYS, {"format": "pt"})
  held = read(path)
  assert held.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    array = np.asarray(array)
    assert held[name].shape == array.shape, name
    assert held[name].dtype == array.dtype.newbyteorder("="), name
    np.testing.assert_array_equal(held[name], array, name)


def test_a_dtype_that_the_format_lacks_is_an_error_of_writing(tmp_path):
  with pytest.raises(OSError, match="complex128"):
    write_tensors(tmp_path / "file.safetensors", {"x": np.zeros(3, np.complex128)})
