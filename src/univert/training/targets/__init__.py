"""What the unified model learns to reproduce, and which trained model becomes the run's unified model.

In the order in which a run uses them: `config`, `members`, `alignment`, `map`, `learning_targets`, `start`,
`ensemble`, `choice`.
"""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"Member": "univert.training.targets.members", "UnifyConfig": "univert.training.targets.config"}
)
