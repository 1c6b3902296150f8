"""What losses over labels are called with: a miner's choice, reference rows, pytorch-metric-learning's wrappers."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning.distances import LpDistance, SNRDistance
from pytorch_metric_learning.miners import BatchHardMiner, MultiSimilarityMiner
from pytorch_metric_learning.reducers import SumReducer
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor, nn

from tests.losses.cases import CASES, PRODUCTS, SIZE
from tests.oracles import mining as oracle
from univert import losses as ours
from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances
from univert.losses import label_loss
from univert.losses.label_loss import Batch, LabelLoss
from univert.losses.triplet_margin_loss import _list_mined

LOSSES = {name: case.make for name, case in CASES.items() if name != "target-l2"}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def batch(rows: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = nn.functional.normalize(torch.randn(rows, SIZE, generator=generator))
    return x.requires_grad_(), torch.arange(rows) % PRODUCTS


class Joined(theirs.BaseMetricLossFunction):  # type: ignore[misc]
    """As docs/losses/README.md has it: their wrapper wants its own kind of loss."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, *arguments: Any) -> Tensor:
        value: Tensor = self.loss(*arguments)
        return value


@every_loss
def test_every_loss_runs_in_their_wrappers(make: Callable[[], LabelLoss]) -> None:
    x, y = batch()
    loss = make().eval()
    wanted = loss(x, y)
    torch.testing.assert_close(loss(x, y, None, None, None), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        torch.testing.assert_close(DistributedLossWrapper(Joined(loss))(x, y), wanted)
    other = theirs.ContrastiveLoss()
    torch.testing.assert_close(theirs.MultipleLosses([loss, other], weights=[2, 1])(x, y), 2 * wanted + other(x, y))
    if type(loss).__name__ in theirs.CrossBatchMemory.supported_losses():
        wrapper = theirs.CrossBatchMemory(loss, SIZE, memory_size=20)
        values = [wrapper(*batch(seed=seed)) for seed in range(3)]
        assert torch.stack(values).isfinite().all()
        values[-1].backward()


@every_loss
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # by their progress bar
def test_every_loss_trains_in_their_trainer(make: Callable[[], LabelLoss]) -> None:
    x, y = batch()
    trunk = nn.Linear(SIZE, SIZE)
    before = trunk.weight.detach().clone()
    MetricLossOnly(
        models={"trunk": trunk},
        optimizers={"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        batch_size=12,
        loss_funcs={"metric_loss": make()},
        dataset=torch.utils.data.TensorDataset(x.detach(), y),
        dataloader_num_workers=0,
        iterations_per_epoch=1,
        data_device=torch.device("cpu"),
    ).train(num_epochs=1)
    assert not torch.equal(trunk.weight, before)


@every_loss
def test_what_a_loss_has_no_use_for_is_refused(make: Callable[[], LabelLoss]) -> None:
    x, y = batch()
    loss, name = make(), type(make()).__name__
    options: dict[str, tuple[Any, ...]] = {"indices_tuple": ((y, y, y),), "ref_emb": (None, x, y)}
    for option, arguments in options.items():
        if option not in loss.takes:
            with pytest.raises(BadInputError, match=f"{name} has no use for {option}"):
                loss(x, y, *arguments)
    with pytest.raises(BadInputError, match=r"labels must be a vector of integers, a torch\.Tensor, got None"):
        loss(x, None)


CALLS: dict[str, Callable[[Tensor, Tensor], tuple[Any, ...]]] = {
    "triplets": lambda x, y: (BatchHardMiner()(x, y),),
    "pairs": lambda x, y: (MultiSimilarityMiner()(x, y),),
    "nothing": lambda x, y: ((torch.empty(0, dtype=torch.long),) * 3,),
    "references": lambda x, y: (None, *batch(7, seed=1)),
}
ALL: dict[str, Any] = {"mining": "all", "distance": "plain"}
PEERS = [
    (ours.TripletMarginLoss(0.3, **ALL), theirs.TripletMarginLoss(0.3), CALLS.keys()),
    (ours.TripletMarginLoss(0.3, swap=True, **ALL), theirs.TripletMarginLoss(0.3, swap=True), ["triplets", "pairs"]),
    (ours.TripletMarginLoss(smooth_loss=True, **ALL), theirs.TripletMarginLoss(0.2, smooth_loss=True), CALLS.keys()),
    (ours.LiftedStructureLoss(0.7, scale=1.0), theirs.LiftedStructureLoss(0.7), ["triplets", "pairs", "nothing"]),
    (ours.NCALoss(3.0), theirs.NCALoss(3.0), ["references"]),
]


@pytest.mark.parametrize(
    ("one", "other", "call"), [(one, other, CALLS[call]) for one, other, calls in PEERS for call in calls]
)
def test_a_miners_choice_and_reference_rows_are_used_as_theirs(one: LabelLoss, other: nn.Module, call: Any) -> None:
    x, y = batch()
    arguments = call(x, y)
    torch.testing.assert_close(one(x, y, *arguments), other(x, y, *arguments), rtol=1e-4, atol=1e-5)


def test_listed_triplets_are_those_that_the_mining_admits() -> None:
    x, y = batch()
    wanted = {
        "all": set(oracle.triples(y)),
        "hard": oracle.hardest(x, y),
        "semi-hard": oracle.semi_hard(x, y, 0.3, None, plain=False),
    }
    for mining, triplets in wanted.items():
        found = _list_mined(squared_distances(x, x), Batch(embeddings=x, labels=y).pairs(), 0.3, mining)
        assert set(zip(*(index.tolist() for index in found), strict=True)) == triplets


def test_a_miner_s_choice_may_be_lists_or_arrays_of_whole_numbers() -> None:
    x, y = batch()
    triplets = ours.SemiHardMiner()(x, y)
    value = ours.TripletMarginLoss()(x, y, triplets)
    assert ours.TripletMarginLoss()(x, y, [index.tolist() for index in triplets]) == value
    assert ours.TripletMarginLoss()(x, y, [index.numpy() for index in triplets]) == value
    for wrong in (5, "abc", [["a"], ["b"], ["c"]], [[0.5], [1.5], [2.5]], [[True], [True], [False]]):
        with pytest.raises(BadInputError, match="indices_tuple must be 3 integer vectors"):
            ours.TripletMarginLoss()(x, y, wrong)  # type: ignore[arg-type]


def test_reference_rows_are_checked() -> None:
    x, y = batch()
    for arguments, message in (
        ((None, x, None), "must come together"),
        ((None, None, y), "must come together"),
        ((None, x[:, :2], y), "ref_emb must be"),
        ((None, x, y[:-1]), "ref_labels must be as many"),
        (((y, y, y + 9), x, y), r"rows 0\.\.11"),
    ):
        with pytest.raises(BadInputError, match=message):
            ours.NCALoss()(x, y, *arguments)


def test_objects_that_a_loss_cannot_follow_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"distance of NCALoss must be one of LpDistance\(power=2\), .*SNRDistance"):
        ours.NCALoss(distance=SNRDistance())
    with pytest.raises(BadInputError, match=r"got LpDistance\(p=1, power=1\)"):
        ours.TripletMarginLoss(distance=LpDistance(p=1))
    with pytest.raises(BadInputError, match="reducer of ProxyNCALoss must be one of MeanReducer; got SumReducer"):
        ours.ProxyNCALoss(4, 4, reducer=SumReducer())
    with pytest.raises(BadInputError, match="seed has no effect beside weight_init_func"):
        ours.ProxyNCALoss(4, 4, seed=0, weight_init_func=nn.init.normal_)


@pytest.mark.parametrize("name", ["ProxyNCALoss", "ProxyAnchorLoss", "NormalizedSoftmaxLoss", "SoftTripleLoss"])
def test_proxies_start_and_are_read_as_theirs(name: str) -> None:
    x, _ = batch()
    attribute = {"NormalizedSoftmaxLoss": "W", "SoftTripleLoss": "fc"}.get(name, "proxies")
    pair = [getattr(package, name)(PRODUCTS, SIZE, weight_init_func=_count) for package in (ours, theirs)]
    torch.testing.assert_close(getattr(pair[0], attribute), getattr(pair[1], attribute))
    torch.testing.assert_close(pair[0].get_logits(x), pair[1].get_logits(x), rtol=1e-4, atol=1e-5)


def _count(weights: Tensor) -> None:
    weights.data.copy_(torch.arange(weights.numel()).view_as(weights) % 7 - 3)


@pytest.fixture
def two_processes() -> Iterator[None]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    label_loss._warn_of_other_processes.cache_clear()
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("two_processes")
def test_losses_between_images_say_once_that_they_see_one_process() -> None:
    x, y = batch()
    for make in (
        ours.TripletMarginLoss,
        lambda: ours.ProxyAnchorLoss(4, SIZE),
        lambda: ours.DynamicProxyNCALoss(4, SIZE),
    ):
        loss = make()
        with pytest.warns(UserWarning, match="compares the images of this process alone"):
            loss(x, y)
        loss(x, y)
    ours.ProxyNCALoss(4, SIZE)(x, y)
