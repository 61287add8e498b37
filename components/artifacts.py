"""Artifact types of the steps that TFX does not have."""

from typing import ClassVar

from tfx.types.artifact import Artifact, Property, PropertyType


class ImageStatisticsArtifact(Artifact):
    """Statistics of the images of a span and of the gate's test set, see `components.data.statistics.component`."""

    TYPE_NAME = "ImageStatistics"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT)}


class DataVerdictArtifact(Artifact):
    """Findings of the data gate, and whether training may start, see `components.data.gate.component`."""

    TYPE_NAME = "DataVerdict"
    PROPERTIES: ClassVar = {"span": Property(type=PropertyType.INT), "passed": Property(type=PropertyType.INT)}


class BackboneArtifact(Artifact):
    """A pretrained ViT to fine-tune: see `components.model.backbone`."""

    TYPE_NAME = "Backbone"
