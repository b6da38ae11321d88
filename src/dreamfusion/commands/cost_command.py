"""``dreamfusion cost``: what runs have cost."""

from __future__ import annotations

import argparse

from ..errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    """Runs, and prices."""
    parser.add_argument("runs", nargs="*", metavar="FOLDER", help="runs' folders, or folders of them [runs]")
    parser.add_argument(
        "--kwh-price", metavar="X", help="price of a kilowatt-hour [each run's own; 0.30 beside another new price]"
    )
    parser.add_argument(
        "--hour-price", metavar="X", help="price of an hour of the machine [each run's own; 0 beside another new price]"
    )
    parser.add_argument("--currency", metavar="NAME", help="currency of these prices, such as USD [EUR]")


def act(given: argparse.Namespace) -> int:
    """Say what runs have cost: a table, and the sum."""
    from ..batch.cost_report import as_figures, find_costs, table
    from ..settings.building import changed
    from ..settings.presets import resolve

    wanted = {f"cost.{name}": getattr(given, name) for name in ("kwh_price", "hour_price", "currency")}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    prices = changed(resolve(prompt="x"), wanted).cost if wanted else None
    costs = find_costs(given.runs or ["runs"])
    if not any(cost.parts for cost in costs):
        raise UserError(f"none of the {len(costs)} runs has a record of its cost; runs of earlier versions have none")
    given.output.say(table(costs, prices))
    given.output.note(**as_figures(costs, prices))
    return 0
