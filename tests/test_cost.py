"""What a run costs: the sensors against made-up systems, the parts of a resumed run, and the sum."""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreamfusion import cli, generate
from dreamfusion.batch.cost_report import find_costs
from dreamfusion.cost import meter, sensors
from dreamfusion.cost.cost_settings import CostSettings
from dreamfusion.cost.meter import Meter, energy_wh, price, read_parts, total
from dreamfusion.cost.sensors import Nvml, Rapl
from dreamfusion.errors import UserError
from tests.fakes import SMALL, GrayBallPrior

CPU = torch.device("cpu")
PRICES = CostSettings(kwh_price=0.5, hour_price=2.0, currency="USD", core_watts=10, gpu_watts=100)


def package(powercap: Path, name: str, label: str, energy: int, limit: int = 1_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    return folder / "energy_uj"


def test_rapl_adds_packages_and_counts_on_when_they_wrap_around(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", "package-0", 999_000)
    package(tmp_path, "intel-rapl:0:0", "core", 5)
    package(tmp_path, "intel-rapl:1", "psys", 5)
    second = package(tmp_path, "intel-rapl:2", "package-1", 10)
    rapl = Rapl(tmp_path)
    assert rapl.joules() == 0
    first.write_text("500")  # 1,501 microjoules later, with 1,000,001 values of the counter
    second.write_text("2010")
    assert rapl.joules() == pytest.approx((1501 + 2000) / 1e6)
    first.write_text("400")
    assert rapl.joules() == pytest.approx((1501 + 2000 + 999_901) / 1e6)
    second.unlink()
    assert rapl.joules() is None and Rapl(tmp_path / "nothing").joules() is None


def test_nvml_tells_joules_of_one_gpu() -> None:
    def total_energy(handle: Any, answer: Any) -> int:
        answer._obj.value = totals.pop(0)
        return 0

    def by_uuid(uuid: bytes, handle: Any) -> int:
        asked.append(uuid)
        return 0

    totals, asked = [5_000, 12_500], []
    library: Any = SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetTotalEnergyConsumption=total_energy,
    )
    gpu = Nvml("GPU-1", library)
    assert gpu.joules() == 7.5 and asked == [b"GPU-1"]
    old: Any = SimpleNamespace(nvmlInit_v2=lambda: 0, nvmlDeviceGetHandleByUUID=by_uuid)  # no energy counter
    assert Nvml("GPU-1", old).joules() is None
    broken: Any = SimpleNamespace(nvmlInit_v2=lambda: 9)
    assert Nvml("GPU-1", broken).joules() is None


def test_nvml_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert Nvml("GPU-1").joules() is None


def test_the_machine_and_this_process_are_read(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 20 30 9000 50 6 4 7 0 0\ncpu0 1\n")
    assert sensors.busy_seconds(tmp_path) == pytest.approx(160 / os.sysconf("SC_CLK_TCK"))
    assert sensors.busy_seconds(tmp_path / "nothing") is None
    before, busy = sensors.cpu_seconds(), sensors.busy_seconds()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert sensors.cpu_seconds() - before > 0.039 and (busy is None or sensors.busy_seconds() >= busy)  # type: ignore[operator]
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("VmPeak: 9 kB\nVmHWM:    2000 kB\n")
    assert sensors.peak_mb(tmp_path) == pytest.approx(2.048)
    grown = sensors.peak_mb()
    assert grown is not None and 50 < grown < 100_000
    sensors.forget_peak(tmp_path / "nothing")


def test_energy_is_measured_or_says_that_it_is_an_estimate() -> None:
    part = {"cpu_seconds": 30.0, "gpu_seconds": 0.0}
    assert energy_wh(part, PRICES, 7200.0, 60.0, None) == (pytest.approx(1.0), "RAPL")  # half of the busy time
    assert energy_wh(part, PRICES, 7200.0, 20.0, None) == (pytest.approx(2.0), "RAPL")  # never more than all
    assert energy_wh(part, PRICES, None, 60.0, None) == (pytest.approx(300 / 3600), "estimate")
    assert energy_wh(part, PRICES, 7200.0, None, None) == (pytest.approx(300 / 3600), "estimate")
    with_gpu = part | {"gpu_seconds": 36.0}
    assert energy_wh(with_gpu, PRICES, 7200.0, 60.0, 7200.0) == (pytest.approx(3.0), "RAPL and NVML")
    assert energy_wh(with_gpu, PRICES, 7200.0, 60.0, None) == (pytest.approx(2.0), "RAPL and estimate")
    assert energy_wh(with_gpu, PRICES, None, None, None) == (pytest.approx(3900 / 3600), "estimate")
    assert price(500, 1800, PRICES) == pytest.approx(0.25 + 1.0)


def test_a_meter_measures_what_happens_meanwhile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = {"now": 100.0, "cpu": 5.0, "busy": 50.0}
    monkeypatch.setattr(meter, "now", lambda: clock["now"])
    monkeypatch.setattr(meter, "cpu_seconds", lambda: clock["cpu"])
    monkeypatch.setattr(meter, "busy_seconds", lambda: clock["busy"])
    energy = package(tmp_path, "intel-rapl:0", "package-0", 0, 10**12)
    monkeypatch.setattr(meter, "Rapl", lambda: Rapl(tmp_path))
    own = Meter(PRICES, CPU)
    clock |= {"now": 1900.0, "cpu": 905.0, "busy": 1850.0}
    energy.write_text(str(7200 * 10**6))
    found = own.part()
    assert (found["seconds"], found["cpu_seconds"], found["gpu_seconds"]) == (1800, 900, 0)
    assert (found["wh"], found["energy"], found["cost"]) == (1.0, "RAPL", pytest.approx(0.0005 + 1.0))
    own.save()  # there is no folder


def test_a_resumed_run_adds_up_its_parts(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.step == 3:
            raise Stop

    settings = SMALL | {"cost.kwh_price": 2, "cost.currency": "USD"}
    with pytest.raises(Stop):
        generate("a ball", "fast", out=tmp_path / "run", prior=GrayBallPrior(), callbacks=[stop], **settings)
    (first,) = read_parts(tmp_path / "run")
    generate(resume=tmp_path / "run", prior=GrayBallPrior())
    parts = read_parts(tmp_path / "run")
    assert len(parts) == 2 and parts[0] == first and parts[1]["seconds"] > 0 and parts[1]["currency"] == "USD"
    found = total(parts)
    assert found["cpu_seconds"] == sum(part["cpu_seconds"] for part in parts) > 0
    assert found["peak_mb"] == max(part["peak_mb"] for part in parts)
    assert found["cost"] == pytest.approx(found["wh"] / 500, abs=1e-3)
    generate("a ball", "fast", out=tmp_path / "other", prior=GrayBallPrior(), **SMALL)
    assert len(read_parts(tmp_path / "other")) == 1


def write(folder: Path, *parts: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text("config: {prompt: a ball}\n")
    if parts:
        (folder / "cost.json").write_text(json.dumps({"parts": parts}))


PART = {
    "seconds": 60.0, "cpu_seconds": 90.0, "gpu_seconds": 0.0, "wh": 2.0, "cost": 0.01, "currency": "EUR",
    "energy": "estimate", "peak_mb": 800.0,
}  # fmt: skip


def test_costs_are_summed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", PART, PART | {"peak_mb": 900.0})
    write(tmp_path / "set" / "b", PART | {"energy": "RAPL", "gpu_seconds": 30.0})
    write(tmp_path / "set" / "c")
    assert cli.main(["cost", str(tmp_path), str(tmp_path / "a"), "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert len(page["runs"]) == 2 and page["without_record"] == [str(tmp_path / "set" / "c")]
    assert page["total"]["wh"] == 6.0 and page["total"]["seconds"] == 180.0 and page["total"]["peak_mb"] == 900.0
    assert page["total"]["cost"] == pytest.approx(0.03) and page["total"]["energy"] == "estimate and RAPL"
    assert cli.main(["cost", str(tmp_path), "--kwh-price", "0.5", "--hour-price", "3", "--currency", "USD"]) == 0
    said = capsys.readouterr().out
    last = next(line for line in said.splitlines() if line.startswith("2 runs")).split()
    assert last == ["2", "runs", "3:00", "4:30", "0:30", "6.00", "0.1530", "USD", "900", "MB", "3"]
    assert "An estimate is CPU seconds times cost.core_watts" in said and "1 run has no record" in said


def test_different_currencies_have_no_sum() -> None:
    assert total([PART, PART | {"currency": "USD"}])["cost"] is None


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"parts": 3}', '{"parts": [{"seconds": "x"}]}'])
def test_a_damaged_record_counts_as_none(text: str, tmp_path: Path) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / "cost.json").write_text(text)
    assert read_parts(tmp_path / "run") == []
    assert cli.main(["cost", str(tmp_path)]) == 2


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", PART)
    for argv, said in (
        ([str(tmp_path / "nowhere")], "there is no folder"),
        ([str(tmp_path / "run"), "--kwh-price", "-1"], "cost.kwh_price = '-1' is not allowed"),
        ([str(tmp_path / "run"), "--currency", "euro"], "cost.currency = 'euro' is not allowed"),
    ):
        assert cli.main(["cost", *argv]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no run in"):
        find_costs([tmp_path / "empty"])
