import pytest

from trainer.disk import atomic_write


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "figures.json"
    with atomic_write(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(OSError, match="no space"), atomic_write(path) as file:
        file.write(b"half of the sec")
        raise OSError("no space")
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
