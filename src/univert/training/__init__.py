"""From a catalogue to one unified model."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CombineConfig": "univert.training.combine.config",
        "DataConfig": "univert.training.recipe",
        "EvaluationConfig": "univert.training.recipe",
        "GrowConfig": "univert.training.grow.config",
        "LabelLoopConfig": "univert.training.label_config",
        "LabelObjective": "univert.training.objectives",
        "LoopConfig": "univert.training.label_config",
        "Objective": "univert.training.objectives",
        "Recipe": "univert.training.recipe",
        "RunContext": "univert.training.run_context",
        "SpecialistsConfig": "univert.training.label_config",
        "TargetObjective": "univert.training.objectives",
        "TrainingJob": "univert.training.jobs",
        "UnifyConfig": "univert.training.targets.config",
        "fit": "univert.training.loop",
        "run_stages": "univert.training.stages",
        "train": "univert.main_job",
    },
)
