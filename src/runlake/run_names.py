"""Names for runs that nobody named: the same for a run id on every host, easy to say."""

from __future__ import annotations

import hashlib
from typing import Final

_ADJECTIVES: Final = (
    "able amber ample apt bold brave brisk bright calm candid clear clever cosy crisp deft eager "
    "early easy fair fast fine firm fleet fond frank free fresh gentle glad golden grand great "
    "green happy hardy honest jolly keen kind large light lively lucid lucky mellow merry mild "
    "neat nimble noble open patient plain polite proud quick quiet rapid ready rich robust rosy "
    "round sharp shiny silent silver simple sleek smart smooth snug sober soft solid spry steady "
    "still stout strong sunny sure swift tame tidy true upbeat vast vivid warm wide wise witty "
    "young zesty"
)
_NOUNS: Final = (
    "alder auk bay beach beaver birch bison brook carp cedar cliff cloud coast cod coot cove crab "
    "crane creek curlew dale dawn deer delta dove dune eagle eel egret elk elm fern field finch "
    "fjord fox frog gale glade grebe grove gull hare harbour hawk heron hill ibis inlet island "
    "jay juniper kelp kite lagoon lake lark lily loon lynx maple marsh marten meadow mist mole "
    "moor moose moss newt oak orca osprey otter owl perch pike pine plover pond poplar puffin "
    "quail rail raven reed reef ridge river robin rook sedge seal shoal shore snipe spring stoat "
    "stork stream swan swift teal tern thrush tide toad trout vale vole wave willow wren yew"
)


def auto_name(run_id: str) -> str:
    """Return a name like `brisk-heron-417`, derived from a run's id."""
    number = int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=8).digest())
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    number, adjective = divmod(number, len(adjectives))
    number, noun = divmod(number, len(nouns))
    return f"{adjectives[adjective]}-{nouns[noun]}-{number % 1000}"
