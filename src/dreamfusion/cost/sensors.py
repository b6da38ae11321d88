"""What the system tells about energy, time and memory. Each sensor answers None where the system does not say.

RAPL is the energy counter of Intel and AMD processors, in Linux's powercap folder. NVML is the library of Nvidia's driver.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PROC = Path("/proc")


class Rapl:
    """The energy of all processor packages since the sensor was made, in joules.

    The counters wrap around (at some 65 to 260 kJ), so ``joules`` must be called every few minutes.
    """

    def __init__(self, powercap: Path = POWERCAP):
        self.spent = 0.0
        self.domains: dict[Path, tuple[int, int]] = {}
        with suppress(OSError, ValueError):
            for name in sorted(powercap.glob("*/name")):
                if name.read_text().startswith("package"):  # "psys" and the parts of a package would count twice
                    energy = name.with_name("energy_uj")
                    limit = int(name.with_name("max_energy_range_uj").read_text())
                    self.domains[energy] = int(energy.read_text()), limit

    def joules(self) -> float | None:
        """Joules so far; None where the counters cannot be read (they often need root)."""
        try:
            for path, (before, limit) in self.domains.items():
                now = int(path.read_text())
                self.spent += ((now - before) % (limit + 1)) / 1e6
                self.domains[path] = now, limit
        except (OSError, ValueError):
            return None
        return self.spent if self.domains else None


class Nvml:
    """The energy of one GPU since the sensor was made, in joules."""

    def __init__(self, uuid: str, library: ctypes.CDLL | None = None):
        self.handle = ctypes.c_void_p()
        self.library: ctypes.CDLL | None = None
        with suppress(OSError, AttributeError):
            found = library or ctypes.CDLL("libnvidia-ml.so.1")
            if not found.nvmlInit_v2() and not found.nvmlDeviceGetHandleByUUID(
                uuid.encode(), ctypes.byref(self.handle)
            ):
                self.library = found
        self.first = self._total()

    def joules(self) -> float | None:
        """Joules so far; None for GPUs without such a counter (it came with Volta)."""
        now = self._total()
        return None if now is None or self.first is None else (now - self.first) / 1e3

    def _total(self) -> int | None:
        millijoules = ctypes.c_ulonglong()
        with suppress(AttributeError):
            if self.library and not self.library.nvmlDeviceGetTotalEnergyConsumption(
                self.handle, ctypes.byref(millijoules)
            ):
                return millijoules.value
        return None


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


def busy_seconds(proc: Path = PROC) -> float | None:
    """CPU time of the whole machine that was not idle."""
    try:
        words = (proc / "stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _idle, _wait, irq, soft = map(int, words[:7])
        return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def peak_mb(proc: Path = PROC) -> float | None:
    """Peak of this process's resident memory, in MB, since it began or since ``forget_peak``."""
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "self" / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    with suppress(ImportError):
        import resource

        unit = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return None


def forget_peak(proc: Path = PROC) -> None:
    """Let the peak begin anew (Linux). For a process of our own that makes one asset after another."""
    with suppress(OSError):
        (proc / "self" / "clear_refs").write_text("5")


def now() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()
