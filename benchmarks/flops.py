"""Floating-point operations of a ViT: two for each multiplication in its matrix products and convolutions.

As is usual, normalisation, softmax, GELU and the optimizer are not counted.
"""


def training_flops(
    image_size: int = 32,
    patch_size: int = 4,
    classes: int = 10,
    depth: int = 6,
    width: int = 256,
    mlp_ratio: int = 4,
    pool: str = "cls",
    conv_stem: bool = False,
    whole: bool = False,
) -> int:
    """Count the operations for one image of a training step: a forward pass, and a backward pass of twice as many.

    Args:
        image_size: Pixels on a side of an image.
        patch_size: Pixels on a side of a patch.
        classes: Number of classes.
        depth: Number of encoder blocks.
        width: Width of a token.
        mlp_ratio: Hidden units of each MLP, as a multiple of the width.
        pool: Summary of the tokens that the head reads, as for `trainer.vit.ViT`.
        conv_stem: Whether convolutions embed the patches.
        whole: Whether to count every token in every block, as a plain ViT computes them. Otherwise, with the pool
            "cls", only the CLS token counts in the last block after keys and values, as in `trainer.vit.ViT`.

    Returns:
        The number of operations; 1.92e9 for ViT-Tiny with `whole`.
    """
    grid = image_size // patch_size
    tokens = grid**2 + (pool == "cls")
    queries = 1 if pool == "cls" and not whole else tokens

    def block(queries: int) -> int:
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
