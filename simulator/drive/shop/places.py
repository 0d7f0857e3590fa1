"""The places of the shop where something is decided: their experiments, and who comes there besides a person."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from simulator.worlds.registry import find
from simulator.worlds.world import World


class Place(NamedTuple):
    """file: its experiment. world: the name of the one whose visitors come, with the same actions."""

    file: Path
    world: str

    def experiment(self) -> Experiment:
        """As in the file."""
        return from_message(read_toml(self.file))

    def visitors(self) -> World:
        """Who comes, and what they like."""
        return find(self.world)


PLACES = tuple(
    Place(Path(__file__).parent / f"{name}.toml", world)
    for name, world in (
        ("banner", "storefront"),
        ("picks", "asking"),
        ("cta", "product-cta"),
        ("cart", "cart-offer"),
    )
)
FILES = tuple(place.file for place in PLACES)
