"""Caches that cannot be written, read or found: a temporary one, then none, with one warning."""

from __future__ import annotations

import errno
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest
import torch

from dreamfusion import UserError
from dreamfusion.kernels.caching import KernelCache, cache_folder_of, code_of, njit
from dreamfusion.paths import is_temporary, temporary_folder
from dreamfusion.priors import embeddings
from dreamfusion.priors.question import Tokens
from tests.faults import as_nobody, block, environment, open_to_all, program

pytestmark = pytest.mark.usefixtures("no_caches")
SOURCE = "def twice(x):\n    return 2 * x\n"


def function(folder: Path) -> Callable[[int], int]:
    """A function of a module in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "some.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("some", folder / "some.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice  # type: ignore[no-any-return]


def warned(act: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return act(), [str(w.message) for w in caught if "dreamfusion" in w.filename or "kernels" in str(w.message)]


def test_kernels_are_kept_beside_the_source_if_that_can_be_written(tmp_path: Path) -> None:
    kernel, said = warned(lambda: njit()(function(tmp_path / "src")))
    assert kernel(3) == 6 and said == [] and cache_folder_of(kernel) == tmp_path / "src" / "__pycache__"
    assert list((tmp_path / "src" / "__pycache__").glob("some.twice-*.nbc"))


CLOSURES = """
import sys
from dreamfusion.kernels.caching import njit

def made(number):
    @njit()
    def inner(x):
        return x * number

    @njit()
    def outer(x):
        return inner(x) + 1

    return outer

kernels = [made(int(word)) for word in sys.argv[1:]]
print([kernel(10) for kernel in kernels], [len(kernel.stats.cache_hits) for kernel in kernels])
"""


def test_a_kernel_that_closes_over_another_one_is_found_by_a_later_process(tmp_path: Path) -> None:
    """And kernels of two constants, which two processes have compiled, are not mistaken for each other in a third."""
    (tmp_path / "some.py").write_text(CLOSURES)
    said = [program([str(tmp_path / "some.py"), *words]).stdout.strip() for words in ("1", "2", "12")]
    assert said == ["[11] [0]", "[21] [0]", "[11, 21] [1, 1]"]


def test_a_kernel_is_another_one_when_a_constant_of_what_it_closes_over_changes(tmp_path: Path) -> None:
    def closing_over(number: int) -> Any:
        path, found = tmp_path / f"inner_{number}.py", {}
        path.write_text(f"def inner(x):\n    return x * {number}\n")
        exec(compile(path.read_text(), str(path), "exec"), found)
        inner = found["inner"]
        return lambda x: inner(x) + 1

    codes = [code_of(closing_over(number)) for number in (2, 3, 2)]
    assert codes[0] == codes[2] != codes[1]


@pytest.mark.parametrize("xdg", ["a file", "missing"])
def test_then_in_the_users_cache(xdg: str, tmp_path: Path) -> None:
    block(tmp_path / "src" / "__pycache__", *([tmp_path / "xdg"] if xdg == "a file" else []))
    kernel, said = warned(lambda: njit()(function(tmp_path / "src")))
    assert kernel(3) == 6
    folder = cache_folder_of(kernel)
    assert folder is not None and is_temporary(folder) == (xdg == "a file") == bool(said)


def test_then_in_a_temporary_folder_with_one_warning(tmp_path: Path) -> None:
    block(tmp_path / "a" / "__pycache__", tmp_path / "b" / "__pycache__", tmp_path / "xdg")
    kernels, said = warned(lambda: [njit()(function(tmp_path / name)) for name in "ab"])
    assert [kernel(4) for kernel in kernels] == [8, 8]
    kept = tmp_path / "tmp" / f"dreamfusion-{os.getuid()}" / "kernels"
    assert said == [f"no cache folder can be written to; compiled kernels are kept in {kept}. Set NUMBA_CACHE_DIR"]
    assert len(list(kept.rglob("*.nbc"))) == 2
    again, said = warned(lambda: njit()(function(tmp_path / "a")))
    assert again(5) == 10 and dict(again.stats.cache_hits), "a later process finds it"
    assert numba.config.CACHE_DIR == "", "other packages' caches stay where they are"


def test_then_nowhere_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "tmp").rmdir()
    block(tmp_path / "src" / "__pycache__", tmp_path / "xdg", tmp_path / "tmp")
    kernels, said = warned(lambda: [njit(nogil=True)(function(tmp_path / "src")) for _ in range(3)])
    assert [k(4) for k in kernels] == [8] * 3 and cache_folder_of(kernels[0]) is None
    assert said == ["no cache folder can be written to; kernels are compiled in each process anew. Set NUMBA_CACHE_DIR"]


def test_a_cache_folder_that_was_asked_for_and_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block(tmp_path / "asked")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "asked"))
    kernel, said = warned(lambda: njit()(function(tmp_path / "src")))
    assert kernel(1) == 2 and said == [] and cache_folder_of(kernel) == tmp_path / "src" / "__pycache__"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_cache_that_fails_while_it_is_written(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = njit()(function(tmp_path / "src"))

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(kernel._cache._cache_file, "save", refuse)
    results, said = warned(lambda: [kernel(3), kernel(3.5)])
    assert results == [6, 7.0]
    assert len(said) == 1 and os.strerror(code) in said[0] and "they are compiled anew" in said[0]


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "a folder", "a dangling link"])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache(suffix: str, damage: str, tmp_path: Path) -> None:
    assert njit()(function(tmp_path / "src"))(3) == 6
    (path,) = (tmp_path / "src" / "__pycache__").glob(f"*.{suffix}")
    whole = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage == "a dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"\x80garbage" * 9, "empty": b""}[damage])
    kernel, _ = warned(lambda: njit()(function(tmp_path / "src")))
    result, said = warned(lambda: kernel(4))
    assert result == 8 and len(said) <= 1


def test_another_users_cache_is_not_read(tmp_path: Path) -> None:
    """What is in a cache is executed."""
    mine = temporary_folder("kernels")
    assert mine == tmp_path / "tmp" / f"dreamfusion-{os.getuid()}" / "kernels" and mine.stat().st_mode & 0o777 == 0o700
    mine.chmod(0o777)
    assert temporary_folder("kernels") is None
    mine.chmod(0o700)
    os.rename(mine.parent, tmp_path / "elsewhere")
    mine.parent.symlink_to(tmp_path / "elsewhere")
    assert temporary_folder("kernels") is None


def test_a_user_without_rights_and_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's usual case: an unknown user, site-packages of root, HOME that is not there."""
    with open_to_all() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
        twice = function(folder / "src")
        (folder / "locked").mkdir()
        monkeypatch.setenv("HOME", str(folder / "locked" / "nonexistent"))
        monkeypatch.delenv("XDG_CACHE_HOME")
        njit()(lambda x: x)

        def act() -> list[Any]:
            kernel, said = warned(lambda: njit()(twice))
            return [kernel(4), said, str(cache_folder_of(kernel))]

        (folder / "locked").chmod(0o555)
        (folder / "src").chmod(0o555)
        result, said, kept = as_nobody(act)
        assert result == 8 and len(said) == 1 and kept.startswith(str(folder / "tmp" / "dreamfusion-"))


def test_the_package_is_imported_where_nothing_can_be_written(tmp_path: Path) -> None:
    """numba says 'no locator available' there; the package's folders are stood in for by a copy with links."""
    import dreamfusion

    home = Path(dreamfusion.__file__).parent
    for source in home.rglob("*.py"):
        place = tmp_path / "site" / "dreamfusion" / source.relative_to(home)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
        if not (place.parent / "__pycache__").exists():
            block(place.parent / "__pycache__")
    env = environment(
        PYTHONPATH=str(tmp_path / "site"), PYTHONDONTWRITEBYTECODE="1", HOME="/dev/null", TMPDIR=str(tmp_path / "tmp")
    )
    env |= {"XDG_CACHE_HOME": "/dev/null", "NUMBA_CACHE_DIR": "/dev/null"}
    code = "import dreamfusion.kernels.grid_forward, dreamfusion.kernels.mlp_rows as m; m.row_kernels('float32'); print('ok')"
    done = program(["-W", "always", "-c", code], env=env, cwd="/")
    assert done.returncode == 0 and done.stdout == "ok\n", done.stderr
    assert done.stderr.count("compiled kernels are kept in") == 1 and "Traceback" not in done.stderr


class Encoders(embeddings.TextEncoders):
    """The cache of embeddings without its text encoders."""

    def __init__(self) -> None:
        self.identity, self.warned, self.asked = ["x"], False, 0

    def _encode(self, captions: list[str]) -> list[Tokens]:
        self.asked += len(captions)
        return [embeddings.whole(torch.ones(1, 2, 3)) for _ in captions]


@pytest.mark.parametrize("where", ["DREAMFUSION_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_embeddings_without_a_lasting_cache(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block(tmp_path / "file")
    if where == "HOME":
        monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv(where, str(tmp_path / "file"))
    encoders = Encoders()
    words, said = warned(lambda: encoders(["a", "b"]))
    assert words.tokens.shape == (2, 2, 3) and encoders.asked == 2
    assert len(said) == 1 and "the cache of embeddings cannot be used: cannot write" in said[0]
    assert Encoders()(["a"]).tokens.shape == (1, 2, 3)
    other = Encoders()
    other(["a", "b"])
    assert other.asked == 0, "the temporary cache has them"


def test_embeddings_without_any_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").rmdir()
    block(tmp_path / "file", tmp_path / "tmp")
    monkeypatch.setenv("DREAMFUSION_CACHE", str(tmp_path / "file"))
    encoders = Encoders()
    words, said = warned(lambda: encoders(["a", "b", "c"]))
    assert words.tokens.shape == (3, 2, 3) and len(said) == 1


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: str(path))  # as for a user id without an entry
    assert embeddings.cache_folder() == Path("/~/.cache/dreamfusion")
    write = embeddings.write_atomic

    def refuse(path: Path, data: bytes) -> None:
        if path.is_relative_to("/~"):
            raise UserError(f"cannot write {path}: Permission denied")
        write(path, data)

    monkeypatch.setattr(embeddings, "write_atomic", refuse)
    with pytest.warns(UserWarning, match="the cache of embeddings cannot be used"):
        assert Encoders()(["a"]).tokens.shape == (1, 2, 3)
    assert not (tmp_path / "~").exists()


def test_all_kernels_have_a_cache_that_forgives() -> None:
    from dreamfusion.export import drawing
    from dreamfusion.geometry import raster
    from dreamfusion.kernels import grid_kernels, proposal_rays

    for kernel in (grid_kernels.density, proposal_rays.shares, drawing._shade, raster.rasterise):
        assert isinstance(kernel._cache, KernelCache)
