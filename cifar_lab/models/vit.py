"""A vision transformer for small pictures: patches of a few pixels, few and narrow layers.

The defaults are the ones that Lee, Lee and Song use for CIFAR (4 px patches, 192 wide, 9 layers, 12
heads); blocks normalize first, and the head reads the mean of all tokens instead of a class token.

Reference: Dosovitskiy et al., 2020, arXiv:2010.11929; Lee, Lee, Song, 2021, Vision transformer for small-size
datasets, arXiv:2112.13492 (sizes); Beyer, Zhai, Kolesnikov, 2022, arXiv:2205.01580 (mean of the tokens).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_lab.models.build import build_activation
from cifar_lab.models.dropout import Dropout
from cifar_lab.models.layers import require, require_dropout

_INIT_STD = 0.02


def vit(
    *,
    num_classes: int = 10,
    input_size: int = 32,
    patch_size: int = 4,
    embed_dim: int = 192,
    depth: int = 9,
    heads: int = 12,
    mlp_ratio: float = 2.0,
    activation: str = "gelu",
    dropout: float = 0.1,
) -> nn.Module:
    """Vision transformer; 2,697,226 parameters, 184.62 M multiply-adds at 32 px, 14.16 M of them inside the attention.

    Args:
        num_classes: K.
        input_size: Pixels a side of the images; a multiple of patch_size.
        patch_size: Pixels a side of the patches; L = (input_size / patch_size) ** 2 tokens.
        embed_dim: D, width of the tokens.
        depth: Number of blocks.
        heads: Attention heads; a divisor of embed_dim.
        mlp_ratio: Width of the hidden layer of each block, times embed_dim.
        activation: Row of the ACTIVATIONS table, in the hidden layers.
        dropout: Probability that a value is dropped where a block adds to the tokens, in its hidden layer and of the embedding.

    Returns:
        Network with ``embed``, ``blocks``, ``norm`` and ``head``: [B, 3, H, W] -> logits [B, K], for H = W = input_size.

    Raises:
        ValueError: A keyword out of range, or patches that do not tile the images.
    """
    for key, value in (("patch_size", patch_size), ("embed_dim", embed_dim), ("depth", depth), ("heads", heads)):
        require(value >= 1, key, value, "1 or more")
    require(embed_dim % heads == 0, "heads", heads, f"a divisor of embed_dim, {embed_dim}")
    require(0 < mlp_ratio < math.inf, "mlp_ratio", mlp_ratio, "a number above 0")
    require(
        input_size >= patch_size and input_size % patch_size == 0,
        "input_size",
        input_size,
        f"a multiple of patch_size, {patch_size}",
    )
    require_dropout("dropout", dropout)
    hidden = max(1, round(embed_dim * mlp_ratio))
    blocks = [TransformerBlock(embed_dim, heads, hidden, activation, dropout) for _ in range(depth)]
    return VisionTransformer(PatchEmbedding(input_size, patch_size, embed_dim, dropout), blocks, num_classes)


class VisionTransformer(nn.Module):
    """Patches to tokens, blocks, mean of the tokens, linear head."""

    def __init__(self, embed: "PatchEmbedding", blocks: list["TransformerBlock"], num_classes: int):
        super().__init__()
        embed_dim = embed.position.shape[-1]
        self.embed = embed
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, K]."""
        tokens = self.norm(self.blocks(self.embed(images)))  # [B, L, D]
        return self.head(tokens.mean(dim=1))


class PatchEmbedding(nn.Module):
    """One linear map for all patches, and a learned vector for each place: [B, 3, H, W] -> [B, L, D]."""

    def __init__(self, input_size: int, patch_size: int, embed_dim: int, dropout: float):
        super().__init__()
        self.project = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.empty(1, (input_size // patch_size) ** 2, embed_dim))
        self.dropout = Dropout(dropout)
        nn.init.trunc_normal_(self.position, std=_INIT_STD)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens row by row."""
        tokens = self.project(images).flatten(2).transpose(1, 2)  # [B, L, D]
        return self.dropout(tokens + self.position)


class TransformerBlock(nn.Module):
    """Attention, then a hidden layer; each reads normalized tokens and adds to them: [B, L, D] -> [B, L, D]."""

    def __init__(self, embed_dim: int, heads: int, hidden: int, activation: str, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim)
        self.attention = SelfAttention(embed_dim, heads)
        self.dropout = Dropout(dropout)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, hidden),
            build_activation(activation),
            Dropout(dropout),
            nn.Linear(hidden, embed_dim),
            Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens)))
        return tokens + self.mlp(self.norm2(tokens))


class SelfAttention(nn.Module):
    """Every token reads every token: softmax(Q K^T / sqrt(D / heads)) V in each head: [B, L, D] -> [B, L, D].

    Nothing is dropped among the attention weights: the fused kernels are fastest without.

    Reference: Vaswani et al., 2017, arXiv:1706.03762, equation 1.
    """

    def __init__(self, embed_dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)  # rows: queries, keys, values, each head by head
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, L, D / heads]
        read = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(read.transpose(1, 2).reshape(batch, length, width))


def _initialize(module: nn.Module) -> None:
    """Truncated normal linear layers without bias; patches over their fan-in, as torchvision's ViT."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.trunc_normal_(module.weight, std=math.sqrt(1 / module.weight[0].numel()))
        nn.init.zeros_(module.bias)
