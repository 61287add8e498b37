"""Artifact types of the steps that TFX does not have, and the folders of examples."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from tfx.types import artifact_utils
from tfx.types.artifact import Artifact, Property, PropertyType


class ImageStatisticsArtifact(Artifact):
    """Statistics of the images of a span and of the gate's test set. See `components.data.statistics.component`."""

    TYPE_NAME = "ImageStatistics"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT)}


class DataVerdictArtifact(Artifact):
    """Findings and decision of the data gate. See `components.data.gate.component`."""

    TYPE_NAME = "DataVerdict"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT), "passed": Property(type=PropertyType.INT)}


class BackboneArtifact(Artifact):
    """Pretrained ViT to fine-tune. See `components.model.backbone`."""

    TYPE_NAME = "Backbone"


class LabelSuspectsArtifact(Artifact):
    """Images whose label is probably wrong. See `components.data.labels.component`."""

    TYPE_NAME = "LabelSuspects"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT)}


def split_folders(examples: Iterable[Artifact]) -> dict[str, Path]:
    """Return the folder of each split of some Examples artifacts."""
    return {
        split: Path(artifact_utils.get_split_uri([artifact], split))
        for artifact in examples
        for split in artifact_utils.decode_split_names(artifact.split_names)
    }
