"""A network after an edit: with heads of which rows were removed or brought together, and no other change."""

import copy
from collections.abc import Sequence
from itertools import accumulate, chain

import torch

from trainer.networks.incremental import IncrementalNetwork


@torch.no_grad()
def edited(network: IncrementalNetwork, tasks: Sequence[Sequence[Sequence[int]]]) -> IncrementalNetwork:
    """A copy with other classes; ``tasks`` are, by task and class, the places among the logits that it unites.

    Logits of a class that stays alone are those before; a class of several has the logarithm of their Σ exp.
    """
    made = copy.deepcopy(network)
    counts = list(chain.from_iterable(network.rows))
    ends = list(accumulate(counts))
    places = [list(range(end - count, end)) for end, count in zip(ends, counts, strict=True)]
    of_rows = {
        name: torch.cat([head.get_parameter(name) for head in network.heads])
        for name, _ in network.heads[0].named_parameters()
    }
    del made.heads[:]
    made.rows = ()
    for task in tasks:
        united = [list(chain.from_iterable(places[member] for member in members)) for members in task]
        made.add_task(len(united), rows=list(map(len, united)))
        for name, values in of_rows.items():
            made.heads[-1].get_parameter(name).copy_(values[torch.tensor(list(chain.from_iterable(united)))])
    return made.train(network.training)
