"""Prices, and what an estimate of the energy assumes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..schema import Settings, Weight


class CostSettings(Settings):
    kwh_price: Weight = 0.30
    """Price of a kilowatt-hour of electricity."""
    hour_price: Weight = 0.0
    """Price of an hour of the machine, if it is rented."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR", "USD", "JPY"])] = "EUR"
    """The prices' currency, three capital letters."""
    core_watts: Weight = 8.0
    """Power of a busy CPU core, where the system does not tell the energy (RAPL)."""
    gpu_watts: Weight = 300.0
    """Power of a busy GPU, where its driver does not tell the energy (NVML)."""
