"""The cache gives what was built, or builds it anew."""

import os
import warnings

import numpy as np
import pytest

from jaxmeta.data.cache import cache_folder, cached_arrays, digest, fingerprint

ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8),
    "names": np.array(["Angelic/character01", "ULOG"]),
}


def build():
    return dict(ARRAYS)


def never():
    raise AssertionError("it is in the cache")


def same(arrays):
    return arrays.keys() == ARRAYS.keys() and all(
        np.array_equal(arrays[name], ARRAYS[name]) and arrays[name].dtype == ARRAYS[name].dtype
        for name in ARRAYS
    )


def test_arrays_are_built_once(tmp_path):
    assert same(cached_arrays("set", build, folder=tmp_path / "new" / "folder"))
    assert same(cached_arrays("set", never, folder=tmp_path / "new" / "folder"))
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["set.npz"]


def test_a_damaged_file_is_built_anew_with_a_warning(tmp_path):
    cached_arrays("set", build, folder=tmp_path)
    path = tmp_path / "set.npz"
    whole = path.read_bytes()
    places = np.random.default_rng(1).integers(0, len(whole), 60).tolist()
    damages = [whole[: len(whole) // 2], b"", b"no zip"]
    damages += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in places]
    warned = 0
    for damage in damages:
        path.write_bytes(damage)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert same(cached_arrays("set", build, folder=tmp_path))
        warned += len(caught)
        assert all("is damaged" in str(warning.message) for warning in caught)
        if caught:
            assert same(cached_arrays("set", never, folder=tmp_path))
    assert warned >= 50  # a few bytes of a zip mean nothing, such as its dates


def test_values_under_another_checksum_are_not_believed(tmp_path):
    np.savez(
        tmp_path / "set.npz",
        images=255 - ARRAYS["images"],
        names=ARRAYS["names"],
        sha256=np.array(digest(ARRAYS)),
    )
    with pytest.warns(UserWarning, match="its checksum differs"):
        assert same(cached_arrays("set", build, folder=tmp_path))
    assert same(cached_arrays("set", never, folder=tmp_path))


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="set JAXMETA_CACHE_DIR"):
        assert same(cached_arrays("set", build, folder=tmp_path / "file" / "below"))


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXMETA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "jaxmeta"
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("JAXMETA_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "jaxmeta"


def test_the_digest_knows_names_types_shapes_and_values():
    zeros = np.zeros((2, 3), np.uint8)
    different = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.astype(np.int8)},
        {"a": zeros.T},
        {"a": zeros + np.uint8(1)},
        {"a": zeros, "b": zeros},
    ]
    assert len({digest(arrays) for arrays in different}) == len(different)
    ordered = np.arange(6).reshape(2, 3)
    assert digest({"a": np.asfortranarray(ordered)}) == digest({"a": ordered})


def test_the_fingerprint_changes_with_files_and_settings(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"12")
    prints = [fingerprint([file], 28), fingerprint([file], 84), fingerprint([], 28)]
    file.write_bytes(b"123")
    prints.append(fingerprint([file], 28))
    os.utime(file, ns=(0, 0))
    prints.append(fingerprint([file], 28))
    assert len(set(prints)) == 5
    assert fingerprint([file], 28) == prints[-1]
