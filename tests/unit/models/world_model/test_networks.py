"""Both kinds of networks keep one contract, and the presets are what they say."""

from typing import TypeVar

import pytest
import torch

from worldpilot.errors import InvalidInput, UnknownName
from worldpilot.models.world_model.networks import WorldModelConfig, encoder, predictor, preset
from worldpilot.models.world_model.train import train_preset
from worldpilot.models.world_model.vit import VitConfig

Net = TypeVar("Net", bound=torch.nn.Module)
TINY = VitConfig(patch=8, width=24, depth=2, heads=3, projector=32, predictor_depth=2, predictor_heads=2,
                 predictor_head_dim=8, predictor_mlp=32)  # fmt: skip
CONFIGS = {
    "conv": WorldModelConfig(latent_dim=16, history=3, action_dim=4, hidden=32),
    "vit": WorldModelConfig(latent_dim=16, history=3, action_dim=4, image_size=32, vit=TINY),
}


@pytest.fixture(params=CONFIGS)
def config(request) -> WorldModelConfig:
    return CONFIGS[request.param]


def stirred(net: Net) -> Net:
    """In evaluation mode, with weights that AdaLN-zero's zeros do not hide."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=g)
    return net.eval()


def test_the_encoder_reads_each_image_on_its_own(config):
    net = stirred(encoder(config))
    images = torch.rand(4, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))
    latents = net(images)
    assert latents.shape == (4, config.latent_dim)
    assert (net(images[2:3]) - latents[2:3]).abs().max() < 1e-5 * latents.abs().max()
    assert (latents[0] - latents[1]).abs().max() > 1e-3


def test_predictions_are_open_loop_and_see_no_later_action(config):
    """(E, B, H, D); each step is `step` on the ones before; members differ; the future does not reach back."""
    net, g = stirred(predictor(config)), torch.Generator().manual_seed(0)
    latents, actions = torch.randn(5, 3, 16, generator=g), torch.rand(5, 2 + 4, 4, generator=g) * 2 - 1
    predicted = net(latents, actions)
    assert predicted.shape == (config.members, 5, 4, 16)
    assert (predicted[0] - predicted[1]).abs().max() > 1e-3
    both = (latents.expand(2, -1, -1, -1), actions.expand(2, -1, -1, -1))
    first = net.step(both[0], both[1][:, :, :3])
    second = net.step(torch.cat([both[0][:, :, 1:], first.unsqueeze(2)], 2), both[1][:, :, 1:4])
    assert torch.allclose(predicted[:, :, :2], torch.stack([first, second], 2), atol=1e-5)
    changed = actions.clone()
    changed[:, 4] = -changed[:, 4]
    difference = (net(latents, changed) - predicted).abs().amax((0, 1, 3))
    assert difference[:2].max() < 1e-5
    assert difference[2:].min() > 1e-4


def test_the_history_matters_in_its_order():
    net, g = stirred(predictor(CONFIGS["vit"])), torch.Generator().manual_seed(0)
    latents, actions = torch.randn(5, 3, 16, generator=g), torch.zeros(5, 3, 4)
    swapped = latents[:, [1, 0, 2]]
    assert (net(latents, actions) - net(swapped, actions)).abs().max() > 1e-3


def test_adaln_zero_starts_as_the_identity():
    """Until the gates have learned, neither attention nor actions have a say: only the newest latent has."""
    net, g = predictor(CONFIGS["vit"]).eval(), torch.Generator().manual_seed(0)
    latents, actions = torch.randn(5, 3, 16, generator=g), torch.randn(5, 3, 4, generator=g)
    other = torch.cat([latents[:, :2] + 1, latents[:, 2:]], 1)
    assert torch.equal(net(latents, actions), net(other, -actions))


def test_dropout_acts_in_training_alone():
    net = stirred(predictor(CONFIGS["vit"]))
    latents, actions = torch.randn(5, 3, 16), torch.zeros(5, 3, 4)
    assert torch.equal(net(latents, actions), net(latents, actions))
    net.train()
    assert not torch.equal(net(latents, actions), net(latents, actions))


def test_the_paper_preset_has_the_papers_sizes():
    """ViT-tiny/14 of 5.5 M, predictor of 10.8 M and two projectors of 0.8 M parameters."""
    config = preset("paper", action_dim=10)
    assert (config.image_size, config.latent_dim, config.history, config.action_dim) == (224, 192, 3, 10)
    counts = [sum(p.numel() for p in make(config).parameters()) / 1e6 for make in (encoder, predictor)]
    assert counts == pytest.approx([5.5 + 0.8, 10.8 + 0.8 + 0.2], abs=0.15)
    assert (train_preset("paper").directions, train_preset("paper").inverse_weight) == (1024, 0)


def test_the_small_preset_is_the_default():
    assert preset("small", action_dim=10) == WorldModelConfig()


@pytest.mark.parametrize("call", [lambda: preset("huge", 10), lambda: train_preset("huge")])
def test_an_unknown_preset_is_refused_with_the_names(call):
    with pytest.raises(UnknownName, match="paper, small"):
        call()


def test_a_checkpoint_keeps_the_config(config):
    assert WorldModelConfig.from_dict(config.to_dict()) == config


def test_configs_of_older_checkpoints_are_the_same_still():
    assert "vit" not in WorldModelConfig().to_dict()


@pytest.mark.parametrize(
    "make",
    [
        lambda: WorldModelConfig(image_size=60),
        lambda: WorldModelConfig(members=0),
        lambda: encoder(WorldModelConfig(image_size=64, vit=VitConfig())),  # 64 is no multiple of 14
        lambda: VitConfig(width=100),
        lambda: VitConfig(dropout=1.0),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make):
    with pytest.raises(InvalidInput):
        make()
