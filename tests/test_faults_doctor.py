"""``doctor`` finds caches and folders that cannot be written, full disks and wrong variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamfusion import cli, doctor
from dreamfusion.doctor import Finding
from dreamfusion.kernels import caching
from dreamfusion.paths import temporary_folder
from tests.faults import block

pytestmark = pytest.mark.usefixtures("no_caches")


def found(finding: Finding) -> tuple[bool, str]:
    return finding.missing, finding.found


def test_doctor_finds_no_fault_here() -> None:
    for look in (doctor._runs_folder, doctor._kernel_cache, doctor._caption_cache, doctor._ffmpeg):
        assert not look().missing, look().found


def test_doctor_finds_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block(tmp_path / "runs")
    missing, said = found(doctor._runs_folder())
    assert missing and said.startswith(f"cannot write {tmp_path}/runs: ") and "needed for: generate" in said


def test_doctor_finds_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    usage = doctor.shutil._ntuple_diskusage(10**9, 10**9 - 5 * 10**6, 5 * 10**6)  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    for look in (doctor._runs_folder, doctor._kernel_cache, doctor._caption_cache):
        missing, said = found(look())
        assert missing and "has 5 MB free" in said


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (None, "each run compiles its kernels anew; set NUMBA_CACHE_DIR"),
        ("tmp", "which does not last; set NUMBA_CACHE_DIR"),
    ],
)
def test_doctor_finds_a_kernel_cache_that_does_not_last(
    folder: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "cache_folder_of", lambda _: temporary_folder("kernels") if folder else None)
    missing, line = found(doctor._kernel_cache())
    assert missing and said in line


def test_doctor_finds_a_cache_variable_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null/x")
    missing, line = found(doctor._kernel_cache())
    assert missing and line.startswith("NUMBA_CACHE_DIR=/dev/null/x cannot be written to; ")
    block(tmp_path / "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    missing, line = found(doctor._caption_cache())
    assert missing and line.startswith(f"cannot write {tmp_path}/file/dreamfusion: Not a directory")


def test_doctor_ends_with_1_where_something_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_prior", lambda _: Finding("prior", "here"))
    monkeypatch.setattr(doctor, "_text_encoder", lambda: Finding("text encoder", "here"))
    assert cli.main(["doctor"]) == 0
    block(tmp_path / "runs")
    assert cli.main(["doctor"]) == 1
    assert "MISSING runs" in capsys.readouterr().out
