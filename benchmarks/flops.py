"""Floating-point operations of a ViT: those of its matrix products and convolutions, two for each weight and position.

Normalisation, softmax, GELU and the optimizer are left out, as is custom.
"""


def training_flops(
    image_size=32, patch_size=4, classes=10, depth=6, width=256, mlp_ratio=4, pool="cls", conv_stem=False, whole=False
) -> int:
    """Of one image in a training step: a forward pass, and a backward pass of twice as many.

    What our model computes, which for the pool "cls" is the CLS token alone in the last block after keys and values;
    with `whole`, what any plain ViT would, every token in every block. 1.92e9 for ViT-Tiny as a whole.
    """
    grid = image_size // patch_size
    tokens = grid**2 + (pool == "cls")
    queries = 1 if pool == "cls" and not whole else tokens

    def block(queries):
        qkv, projection, mlp = 3 * tokens * width**2, queries * width**2, 2 * queries * mlp_ratio * width**2
        return qkv + 2 * queries * tokens * width + projection + mlp

    embedding = grid**2 * patch_size**2 * 3 * width
    if conv_stem:
        steps = patch_size.bit_length() - 1
        channels = [3, *(width >> step for step in reversed(range(steps)))]
        embedding = grid**2 * width**2 + sum(
            (image_size >> (step + 1)) ** 2 * 9 * channels[step] * channels[step + 1] for step in range(steps)
        )
    return 3 * 2 * (embedding + (depth - 1) * block(tokens) + block(queries) + width * classes)
