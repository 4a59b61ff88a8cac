"""MATLAB files: SciPy writes them, and what it wrote is what is read."""

import numpy as np
import pytest
import scipy.io  # type: ignore[import-untyped]

from trainer.experiments.data.matfiles import HEADER_BYTES, read_mat


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4), (2, 2, 3, 5)])
def test_arrays_of_every_kind_come_back(tmp_path, dtype, shape, compressed):
    stored = {"X": np.arange(np.prod(shape)).reshape(shape).astype(dtype), "long_name": np.ones((1, 2), dtype)}
    scipy.io.savemat(tmp_path / "file.mat", stored, do_compression=compressed)
    found = read_mat(tmp_path / "file.mat")
    assert found.keys() == stored.keys()
    for name, array in stored.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("data", [b"", b"PK\3\4" + bytes(400)])
def test_another_kind_of_file_is_refused(tmp_path, data):
    (tmp_path / "file.mat").write_bytes(data)
    with pytest.raises(ValueError, match=r"file\.mat is no MATLAB file of version 5"):
        read_mat(tmp_path / "file.mat")


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "whole.mat", {"X": np.ones((4, 4))})
    whole = (tmp_path / "whole.mat").read_bytes()
    for length in range(HEADER_BYTES + 4, len(whole), 7):
        (tmp_path / "file.mat").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"file\.mat is damaged"):
            read_mat(tmp_path / "file.mat")


def test_a_file_of_text_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "file.mat", {"X": "text"})
    with pytest.raises(ValueError, match="other than real numeric arrays"):
        read_mat(tmp_path / "file.mat")
