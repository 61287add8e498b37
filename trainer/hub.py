"""Conversion of a Vision Transformer of KerasHub to `trainer.vit.ViT`, which computes the same function of pixels."""

import keras
import numpy as np

from trainer.vit import EPSILON, ViT


def load_hub(preset: str) -> ViT:
    """Load the ViT of a KerasHub preset.

    The scale and offset of the preset's image converter become the model's mean and std. An image classifier keeps its
    head; a backbone alone gets a head of zeros for 10 classes. Dropout rates and the converter's way of resizing are
    not taken over, because this project's images already have the model's size.

    Loading was tested with folders of random weights. Downloading a preset is unverified.

    Args:
        preset: A folder that KerasHub's `save_to_preset` wrote, or the name of a preset that KerasHub downloads, for
            example "vit_base_patch16_224_imagenet".

    Returns:
        The ViT, in float32.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If the preset cannot be read, is not a ViT of KerasHub, cannot be represented by
            `trainer.vit.ViT`, or lacks an image converter, without which the scaling of its pixels is unknown.
    """
    try:
        import keras_hub
        from keras_hub.src.utils.preset_utils import check_file_exists  # `from_preset` itself calls it
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{preset} is read by KerasHub, which is not installed ({error}): run make setup LOCK=hub"
        ) from error
    models, task = keras_hub.models, None
    try:
        if check_file_exists(preset, "task.json"):
            task = models.ImageClassifier.from_preset(preset, dtype="float32")
        backbone = task.backbone if task else models.Backbone.from_preset(preset, dtype="float32")
    except Exception as error:  # KerasHub raises many types: broken file, unknown name, other model, no network
        raise ValueError(
            f"{preset} cannot be read as a KerasHub preset ({error}): use a complete preset folder, or the name of a "
            "ViT on KerasHub"
        ) from error
    if differences := _unsupported(backbone, task):
        raise ValueError(
            f"{preset} cannot be converted to this project's ViT: {'; '.join(differences)}. Use another preset"
        )
    try:
        converter = models.ImageClassifierPreprocessor.from_preset(preset).image_converter
    except FileNotFoundError:
        converter = None
    if converter is None:
        raise ValueError(
            f"{preset} has no image converter, so how its pixels were scaled is unknown: save one beside the weights, "
            "with ViTImageConverter(scale=..., offset=...).save_to_preset(folder)"
        )
    # This project computes (pixels - mean) / std, KerasHub pixels * scale + offset. Its scale and offset are a number
    # for all channels, or one number for each channel.
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    if not (scale > 0).all():
        raise ValueError(
            f"{preset} scales pixels by {converter.scale}: the scale must be above 0, because its inverse becomes the "
            "std. Use another preset"
        )
    vit = ViT(
        image_size=backbone.image_shape[0],
        patch_size=backbone.patch_size[0],
        classes=task.num_classes if task else 10,
        depth=backbone.num_layers,
        width=backbone.hidden_dim,
        heads=backbone.num_heads,
        mlp_ratio=backbone.mlp_dim // backbone.hidden_dim,
        mean=(0 - offset) / scale,
        std=1 / scale,
        dtype="float32",
        name="vit",
    )
    _copy_weights(backbone, vit)
    if task:
        vit.head.set_weights(task.output_dense.get_weights())
    return vit


def _unsupported(backbone: keras.Model, task: keras.Model | None) -> list[str]:
    """Describe everything about the model that `trainer.vit.ViT` cannot represent."""
    if type(backbone).__name__ != "ViTBackbone":
        return [f"it holds a {type(backbone).__name__}, not a ViTBackbone"]
    height, width, channels = backbone.image_shape
    rows, columns = backbone.patch_size
    mlp, hidden, epsilon = backbone.mlp_dim, backbone.hidden_dim, backbone.layer_norm_epsilon
    is_wrong = {
        f"image_shape {backbone.image_shape} is not a square with 3 channels in the last axis": (height, channels)
        != (width, 3),
        f"patch_size {backbone.patch_size} is not a square": rows != columns,
        f"mlp_dim {mlp} is not a multiple of hidden_dim {hidden}": mlp % hidden != 0,
        f"layer_norm_epsilon {epsilon} is not {EPSILON}": epsilon != EPSILON,
    }
    for name in ("use_class_token", "use_patch_bias", "use_mha_bias", "use_mlp_bias"):
        is_wrong[f"{name} is False"] = not getattr(backbone, name)
    if task:
        activation, hidden_layer = task.output_dense.activation.__name__, task.intermediate_dim
        is_wrong |= {
            f"the classifier's pooling {task.pooling!r} is not 'token'": task.pooling != "token",
            f"the classifier has a layer of intermediate_dim {hidden_layer}": hidden_layer is not None,
            f"the classifier's activation is {activation}, not softmax": activation not in ("linear", "softmax"),
        }
    return [reason for reason, wrong in is_wrong.items() if wrong]


def _copy_weights(backbone: keras.Model, vit: ViT) -> None:
    embedding, encoder = map(backbone.get_layer, ("vit_patching_and_embedding", "vit_encoder"))
    vit.patches.set_weights(embedding.patch_embedding.get_weights())
    vit.tokens.cls.assign(embedding.class_token)
    vit.tokens.positions.assign(embedding.position_embedding.embeddings[None])
    vit.norm.set_weights(encoder.layer_norm.get_weights())
    for ours, theirs in zip(vit.blocks, encoder.encoder_layers, strict=True):
        # KerasHub has three kernels [width, heads, width / heads], this project one kernel [width, 3 * width].
        separate = theirs.mha.query_dense, theirs.mha.key_dense, theirs.mha.value_dense
        kernels, biases = zip(*(layer.get_weights() for layer in separate), strict=True)
        width = len(kernels[0])
        ours.qkv.set_weights([np.concatenate(kernels, axis=1).reshape(width, -1), np.concatenate(biases).ravel()])
        kernel, bias = theirs.mha.output_dense.get_weights()
        ours.projection.set_weights([kernel.reshape(width, width), bias])
        ours.attention_norm.set_weights(theirs.layer_norm_1.get_weights())
        ours.mlp_norm.set_weights(theirs.layer_norm_2.get_weights())
        ours.mlp_in.set_weights(theirs.mlp.dense_1.get_weights())
        ours.mlp_out.set_weights(theirs.mlp.dense_2.get_weights())
