"""The cost of one run, kept in its folder. Each time that somebody works on the run is a part; a resumed run adds one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import write_atomic
from .cost_settings import CostSettings
from .sensors import Nvml, Rapl, busy_seconds, cpu_seconds, now, peak_mb

if TYPE_CHECKING:
    import torch

COST = "cost.json"
SUMMED = ("seconds", "cpu_seconds", "gpu_seconds", "wh", "cost")
HIGHEST = ("peak_mb", "gpu_peak_mb")
ESTIMATE = "estimate"

Part = dict[str, Any]


def energy_wh(
    part: Mapping[str, float],
    settings: CostSettings,
    package_joules: float | None,
    busy: float | None,
    gpu_joules: float | None,
) -> tuple[float, str]:
    """Watt-hours of a part, and how they are known.

    ``package_joules`` are of all processes of the machine; the run's share of them is its share of the ``busy`` CPU seconds.
    What is not measured is estimated: seconds times ``core_watts`` or ``gpu_watts``.
    """
    how = []
    if package_joules is not None and busy:
        joules = package_joules * min(1.0, part["cpu_seconds"] / busy)
        how.append("RAPL")
    else:
        joules = part["cpu_seconds"] * settings.core_watts
        how.append(ESTIMATE)
    if part["gpu_seconds"]:
        joules += gpu_joules if gpu_joules is not None else part["gpu_seconds"] * settings.gpu_watts
        how.append("NVML" if gpu_joules is not None else ESTIMATE)
    return joules / 3600, " and ".join(dict.fromkeys(how))


class Meter:
    """Measures a part from its making on. ``save`` writes it, with the parts before it, into a run's folder."""

    def __init__(self, settings: CostSettings, device: torch.device, folder: Path | None = None, resumed: bool = False):
        self.settings, self.folder, self.device = settings, folder, device
        self.before = read_parts(folder) if folder and resumed else []
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.start, self.cpu, self.busy, self.rapl = now(), cpu_seconds(), busy_seconds(), Rapl()
        self.gpu: Nvml | None = None
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            uuid = getattr(torch.cuda.get_device_properties(device), "uuid", "")
            self.gpu = Nvml(f"GPU-{uuid}")

    def sample(self) -> None:
        """Read the counters that wrap around. Call it now and then."""
        self.rapl.joules()

    def part(self) -> Part:
        """The figures so far."""
        seconds, busy = now() - self.start, busy_seconds()
        found: Part = {
            "began": self.began,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - self.cpu,
            "gpu_seconds": seconds if self.device.type in ("cuda", "mps") else 0.0,
            "peak_mb": peak_mb(),
        }
        if self.device.type == "cuda":
            import torch

            found["gpu_peak_mb"] = torch.cuda.max_memory_reserved(self.device) / 1e6
        spent = None if busy is None or self.busy is None else busy - self.busy
        gpu = self.gpu.joules() if self.gpu else None
        found["wh"], found["energy"] = energy_wh(found, self.settings, self.rapl.joules(), spent, gpu)
        found["cost"] = price(found["wh"], seconds, self.settings)
        found["currency"] = self.settings.currency
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}

    def save(self) -> None:
        """Write all parts into the run's folder, if there is one."""
        if self.folder is not None:
            page = {"parts": [*self.before, self.part()]}
            write_atomic(self.folder / COST, (json.dumps(page, indent=1) + "\n").encode())


def price(wh: float, seconds: float, settings: CostSettings) -> float:
    """What so much energy and time cost."""
    return wh / 1000 * settings.kwh_price + seconds / 3600 * settings.hour_price


def read_parts(folder: Path) -> list[Part]:
    """The parts of a run; none where it has no record, or one that cannot be read."""
    with suppress(OSError, ValueError, UserError, AttributeError):
        parts = json.loads((folder / COST).read_bytes()).get("parts")
        if isinstance(parts, list):
            return [part for part in parts if _is_part(part)]
    return []


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(part.get(key), int | float) for key in SUMMED)


def total(parts: Iterable[Part]) -> Part:
    """Times, energy and cost added up, the highest peaks, and how the energy is known.

    ``cost`` is None where the parts have different currencies.
    """
    parts = list(parts)
    found: Part = {key: sum(part[key] for part in parts) for key in SUMMED}
    for key in HIGHEST:
        known = [part[key] for part in parts if part.get(key) is not None]
        if known:
            found[key] = max(known)
    found["energy"] = " and ".join(
        dict.fromkeys(w for part in parts for w in str(part.get("energy", "")).split(" and ") if w)
    )
    currencies = list(dict.fromkeys(part.get("currency", "") for part in parts))
    found["currency"] = currencies[0] if len(currencies) == 1 else ""
    if len(currencies) > 1:
        found["cost"] = None
    return found
