"""Losses over the triplets that a miner chooses."""

from __future__ import annotations

from tests.losses.case import Case
from tests.oracles import losses as oracles
from tests.oracles import mining
from univert.losses.mined_loss import MinedLoss
from univert.losses.miners.hard_miner import HardMiner
from univert.losses.miners.semi_hard_miner import SemiHardMiner
from univert.losses.triplet_margin_loss import TripletMarginLoss

CASES = {
    "mined-semi-hard": Case(
        MinedLoss,
        MinedLoss(TripletMarginLoss(0.5), SemiHardMiner(0.5, negatives_per_pair=None)),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, None),
    ),
    "mined-hard": Case(
        MinedLoss, MinedLoss(TripletMarginLoss(0.5), HardMiner()), lambda x, y: mining.hardest_loss(x, y, 0.5)
    ),
}
