"""What the unified model learns to reproduce, and which trained model becomes the run's unified model.

In the order in which a run uses them:

1. `config`: the recipe's choices, and how it names members.
2. `members`: the models whose embeddings make up the learning targets.
3. `alignment`: rotating their spaces towards each other, and projecting them to one width.
4. `map`: aligning, joining and projecting, as one linear map for each model.
5. `vertical_prediction`: the likely verticals of images whose vertical nobody knows.
6. `learning_targets`: the target of every image and augmented view, kept on disk.
7. `joined_head`: a head that gives its members' targets before the first step of training.
8. `ensemble`: which members help, by comparing the targets with and without them.
9. `choice`: which of the trained candidates is the best.
"""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Candidate": "univert.training.targets.choice",
        "Choice": "univert.training.targets.choice",
        "Ensemble": "univert.training.targets.ensemble",
        "Member": "univert.training.targets.members",
        "MemberName": "univert.training.targets.config",
        "TriedMember": "univert.training.targets.ensemble",
        "UnifyConfig": "univert.training.targets.config",
    },
)
