"""Artifact types of the steps that TFX does not have."""

from typing import ClassVar

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
