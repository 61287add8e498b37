"""A Vision Transformer of KerasHub as one of ours: the same function of the same pixels."""

import keras
import numpy as np

from trainer.vit import EPSILON, ViT


def load_hub(preset: str) -> ViT:
    """The ViT of a KerasHub preset: its weights, and as mean and std what its own image converter does to pixels.

    preset: a folder that KerasHub's `save_to_preset` wrote, or a name that KerasHub downloads, for example
    "vit_base_patch16_224_imagenet". Tried with folders only, their weights random: no download was.

    An image classifier comes with its head; a backbone alone gets one of zeros, for 10 classes. Rates of dropout are
    left behind, and so is how the converter resizes an image: ours come in the model's size.

    Raises ImportError without KerasHub. Raises ValueError for what cannot be read, is no ViT of KerasHub's, or computes
    what ours cannot; and without an image converter, for then nobody knows which pixels the weights were trained on.
    """
    try:
        import keras_hub
        from keras_hub.src.utils.preset_utils import check_file_exists  # what `from_preset` itself asks
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{preset} is read by KerasHub, which is not installed ({error}): make setup LOCK=hub"
        ) from error
    models, task = keras_hub.models, None
    try:
        if check_file_exists(preset, "task.json"):
            task = models.ImageClassifier.from_preset(preset, dtype="float32")
        backbone = task.backbone if task else models.Backbone.from_preset(preset, dtype="float32")
    except Exception as error:  # whatever a broken file, an unknown name, another model or no network makes it raise
        raise ValueError(
            f"{preset} cannot be read as a KerasHub preset ({error}): name a whole folder of one, or a ViT of its hub"
        ) from error
    if wrong := _misfits(backbone, task):
        raise ValueError(f"{preset} is no ViT that ours can be: {'; '.join(wrong)}. Name another preset")
    try:
        converter = models.ImageClassifierPreprocessor.from_preset(preset).image_converter
    except FileNotFoundError:
        converter = None
    if converter is None:
        raise ValueError(
            f"{preset} has no image converter, so how its pixels were scaled is unknown: save one beside the weights, "
            "with ViTImageConverter(scale=..., offset=...).save_to_preset(folder)"
        )
    # (pixels - mean) / std of ours is pixels * scale + offset of theirs, each for all channels or one a channel.
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    if not (scale > 0).all():
        raise ValueError(f"{preset} scales pixels by {converter.scale}: its inverse is a std of ours, which is above 0")
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


def _misfits(backbone: keras.Model, task: keras.Model | None) -> list[str]:
    """Everything about the model, in words, that a ViT of ours cannot compute."""
    if type(backbone).__name__ != "ViTBackbone":
        return [f"it holds a {type(backbone).__name__}, not a ViTBackbone"]
    height, width, channels = backbone.image_shape
    rows, columns = backbone.patch_size
    mlp, hidden, epsilon = backbone.mlp_dim, backbone.hidden_dim, backbone.layer_norm_epsilon
    is_wrong = {
        f"image_shape {backbone.image_shape} is no square of 3 channels, the last axis": (height, channels)
        != (width, 3),
        f"patch_size {backbone.patch_size} is no square": rows != columns,
        f"mlp_dim {mlp} is no multiple of hidden_dim {hidden}": mlp % hidden != 0,
        f"layer_norm_epsilon {epsilon} is not {EPSILON}": epsilon != EPSILON,
    }
    for name in ("use_class_token", "use_patch_bias", "use_mha_bias", "use_mlp_bias"):
        is_wrong[f"{name} is False"] = not getattr(backbone, name)
    if task:
        activation, between = task.output_dense.activation.__name__, task.intermediate_dim
        is_wrong |= {
            f"the classifier's pooling {task.pooling!r} is not 'token'": task.pooling != "token",
            f"the classifier has a layer of intermediate_dim {between}": between is not None,
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
        # Theirs is a kernel [width, heads, width / heads] each, ours all three in one [width, 3 * width].
        apart = theirs.mha.query_dense, theirs.mha.key_dense, theirs.mha.value_dense
        kernels, biases = zip(*(layer.get_weights() for layer in apart), strict=True)
        width = len(kernels[0])
        ours.qkv.set_weights([np.concatenate(kernels, axis=1).reshape(width, -1), np.concatenate(biases).ravel()])
        kernel, bias = theirs.mha.output_dense.get_weights()
        ours.projection.set_weights([kernel.reshape(width, width), bias])
        ours.attention_norm.set_weights(theirs.layer_norm_1.get_weights())
        ours.mlp_norm.set_weights(theirs.layer_norm_2.get_weights())
        ours.mlp_in.set_weights(theirs.mlp.dense_1.get_weights())
        ours.mlp_out.set_weights(theirs.mlp.dense_2.get_weights())
