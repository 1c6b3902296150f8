"""What the unified model learns to reproduce, and which trained model becomes the run's unified model.

In the order in which a run uses them: `config`, `members`, `alignment`, `map`, `learning_targets`, `joined_head`,
`ensemble`, `choice`.
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
