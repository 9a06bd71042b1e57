"""The vision transformer, part by part, against torch's own transformer and plain loops."""

import pytest
import torch
from torch import nn

from cifar_lab.models.build import build_model


def build(**keywords) -> nn.Module:
    return build_model("vit", **{"num_classes": 10, "input_size": 16, "embed_dim": 24, "depth": 2, "heads": 3, **keywords})


def test_tokens_are_patches_row_by_row_through_one_linear_map():
    torch.manual_seed(0)
    embed = build(patch_size=4).embed.eval()
    nn.init.normal_(embed.project.bias)
    images = torch.randn(2, 3, 16, 16)
    weight = embed.project.weight.flatten(1)  # [D, 3 * 4 * 4]
    found = embed(images)
    assert found.shape == (2, 16, 24)
    for row in range(4):
        for column in range(4):
            patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(1)
            expected = patch @ weight.T + embed.project.bias + embed.position[0, 4 * row + column]
            torch.testing.assert_close(found[:, 4 * row + column], expected, rtol=1e-4, atol=1e-5)


def test_attention_equals_torchs():
    torch.manual_seed(0)
    ours = build().blocks[0].attention
    nn.init.normal_(ours.qkv.weight)  # as initialized, all attention weights are nearly equal
    nn.init.normal_(ours.qkv.bias)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens = torch.randn(2, 7, 24)
    expected, weights = theirs(tokens, tokens, tokens)
    assert weights.max() > 0.5
    torch.testing.assert_close(ours(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_block_equals_torchs_encoder_layer(activation):
    torch.manual_seed(0)
    ours = build(mlp_ratio=1.5, activation=activation, dropout=0.0).blocks[1]
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.TransformerEncoderLayer(
        24, 3, dim_feedforward=36, dropout=0.0, activation=activation, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": ours.attention.qkv,
        "self_attn.out_proj.": ours.attention.out,
        "linear1.": ours.mlp[0],
        "linear2.": ours.mlp[3],
        "norm1.": ours.norm1,
        "norm2.": ours.norm2,
    }
    theirs.load_state_dict({p + k: v for p, module in names.items() for k, v in module.state_dict().items()})
    tokens = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-4)


def test_head_reads_the_normalized_mean_of_all_tokens():
    torch.manual_seed(0)
    model = build().eval()
    images = torch.randn(2, 3, 16, 16)
    tokens = model.embed(images)
    for block in model.blocks:
        tokens = block(tokens)
    mean = sum(model.norm(tokens[:, i]) for i in range(16)) / 16
    torch.testing.assert_close(model(images), mean @ model.head.weight.T + model.head.bias, rtol=1e-4, atol=1e-6)


def test_places_matter_only_through_the_position_embedding():
    torch.manual_seed(0)
    model = build(patch_size=4).eval()
    images = torch.randn(1, 3, 16, 16)
    rolled = images.roll((4, 8), dims=(2, 3))  # whole patches change places
    assert (model(images) - model(rolled)).abs().max() > 1e-4
    nn.init.zeros_(model.embed.position)
    torch.testing.assert_close(model(images), model(rolled), rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, images = build(dropout=0.5), torch.randn(1, 3, 16, 16)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))
    kept = build(dropout=0.0).train()
    assert torch.equal(kept(images), kept(images))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"input_size": 33}, "input_size=33; must be a multiple of patch_size, 4"),
        ({"input_size": 2}, "input_size=2; must be a multiple of patch_size, 4"),
        ({"heads": 5}, "heads=5; must be a divisor of embed_dim, 24"),
        ({"depth": 0}, "depth=0; must be 1 or more"),
        ({"patch_size": 0}, "patch_size=0; must be 1 or more"),
        ({"mlp_ratio": 0.0}, "mlp_ratio=0.0; must be a number above 0"),
        ({"dropout": 1.0}, "dropout=1.0; must be 0 or more and less than 1"),
    ],
)
def test_refuses_what_cannot_be_built(keywords, message):
    with pytest.raises(ValueError) as error:
        build(**keywords)
    assert str(error.value) == message
