"""Networks: shapes, parameter counts against the published ones, and the exactness that splits need."""

import math

import pytest
import torch
from torch import nn

from tasks.networks.cnn import LeNet, SimpleCNN, SmallCNN
from tasks.networks.keyed import KeyedDropout, keyed, number_dropouts
from tasks.networks.language import LSTM, Transformer
from tasks.networks.norm import KeyedDropPath, with_keyed_dropout, with_norm
from tasks.networks.segmentation import SegmentationNetwork
from tasks.networks.zoo import TimmNetwork, TorchvisionNetwork


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (32, 40), (64, 64)])
@pytest.mark.parametrize("network", [SmallCNN, SimpleCNN, LeNet])
def test_small_networks_take_images_of_any_size(network, size):
    if network is LeNet and size == (8, 8):
        pytest.skip("a 5x5 convolution after one pool needs 10 pixels")
    images = torch.randn(3, 1, *size)
    assert network(1, 10)(images).shape == (3, 10)


def test_small_networks_have_the_published_counts():
    # 5x5 convolutions of 1-32 and 32-64, 3136-1024, 1024-10: the network of TensorFlow's MNIST tutorial,
    # 3,274,634 parameters (from memory)
    assert count(SimpleCNN(1, 10)) == 3_274_634
    assert (
        count(LeNet(1, 10)) == 61_706
    )  # LeNet-5 with a full second convolution, as in Keras's examples (memory)
    assert count(SmallCNN(1, 10)) == 160 + 4640 + 15690  # no published count: by hand


def test_language_models_give_logits_and_are_causal():
    tokens = torch.randint(0, 50, (3, 12))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    for model in (
        LSTM(50, 16, 16, layers=2),
        LSTM(50, 8, 16, tied=False),
        Transformer(50, 16, 2, 2, context=12),
    ):
        model = model.double().eval()
        before, after = model(tokens), model(changed)
        assert before.shape == (3, 12, 50)
        assert torch.equal(before[:, :7], after[:, :7])
        assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_lstm_counts_its_tied_weights_once():
    # PyTorch's word_language_model example at its 650-unit setting (Zaremba's medium LSTM, embedding 650) on
    # WikiText-2 (33,278 words): embedding + 2 layers of 4(650*650*2 + 2*650) + the decoder's bias
    vocabulary, size = 33_278, 650
    by_hand = vocabulary * size + 2 * 4 * (2 * size * size + 2 * size) + vocabulary
    assert count(LSTM(vocabulary, size, size, layers=2, tied=True)) == by_hand
    assert count(LSTM(vocabulary, size, size, layers=2, tied=False)) == by_hand + vocabulary * size


def test_language_models_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="tied: false"):
        LSTM(50, 8, 16)
    with pytest.raises(ValueError, match="heads"):
        Transformer(50, 16, heads=3)
    with pytest.raises(ValueError, match="set context to 13"):
        Transformer(50, 16, context=12)(torch.zeros(1, 13, dtype=torch.long))


ZOO = [
    lambda norm: TorchvisionNetwork(1, 7, "resnet18", norm=norm),
    lambda norm: TorchvisionNetwork(3, 7, "mobilenet_v2", norm=norm),
    lambda norm: TimmNetwork(1, 7, "test_resnet", norm=norm),
    lambda norm: TimmNetwork(
        3, 7, "test_efficientnet", norm=norm
    ),  # normalization and activation in one layer
]


@pytest.mark.parametrize("make", ZOO)
@pytest.mark.parametrize("norm", ["group", "none"])
def test_networks_without_batch_norm_treat_each_example_alone(make, norm):
    torch.manual_seed(0)
    network = with_keyed_dropout(make(norm)).double()
    assert not [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in network.modules():
        if isinstance(module, KeyedDropout):
            module.p = 0.0
    channels = next(p for p in network.parameters() if p.ndim == 4).shape[1]
    images = torch.randn(3, channels, 32, 32, dtype=torch.float64)
    whole, alone = network(images), torch.cat([network(image[None]) for image in images])
    assert whole.shape == (3, 7)
    torch.testing.assert_close(whole, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", ZOO)
def test_batch_norm_stays_and_group_norm_has_its_parameters(make):
    batch, group = make("batch"), make("group")
    assert [m for m in batch.modules() if isinstance(m, nn.BatchNorm2d)]
    assert count(batch) == count(group)


def test_exchanging_an_activating_norm_keeps_the_activation():
    from timm.layers import BatchNormAct2d

    images = torch.randn(2, 6, 4, 4)
    group = with_norm(nn.Sequential(BatchNormAct2d(6, act_layer=nn.ReLU)), "group", groups=4)
    reference = torch.relu(nn.functional.group_norm(images, math.gcd(6, 4)))
    torch.testing.assert_close(group(images), reference)
    none = with_norm(nn.Sequential(BatchNormAct2d(6, act_layer=nn.ReLU)), "none")
    torch.testing.assert_close(none(images), torch.relu(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_zero_init_starts_residual_blocks_as_the_identity(name, norm):
    network = TorchvisionNetwork(3, 10, name, norm=norm, zero_init_residual=True).eval()
    block = network.network.features[3] if name == "mobilenet_v2" else network.network.layer1[1]
    x = torch.rand(2, {"resnet18": 64, "resnet50": 256, "mobilenet_v2": 24}[name], 8, 8)
    torch.testing.assert_close(block(x), x)


def test_norm_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="'batch', 'group' or 'none'"):
        with_norm(nn.ReLU(), "layer")
    with pytest.raises(ValueError, match="no residual block"):
        TorchvisionNetwork(3, 10, "vgg11_bn", zero_init_residual=True)
    with pytest.raises(ValueError, match="gamma"):
        TorchvisionNetwork(3, 10, "resnet18", norm="none", zero_init_residual=True)


def test_every_dropout_is_keyed():
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.25), nn.Dropout(0.0))
    with_keyed_dropout(network)
    assert isinstance(network[0], KeyedDropout)
    assert not network[0].channels
    assert isinstance(network[1], KeyedDropout)
    assert network[1].channels
    assert isinstance(network[2], nn.Dropout)
    with pytest.raises(ValueError, match="attention dropout"):
        with_keyed_dropout(nn.Sequential(nn.MultiheadAttention(4, 2, dropout=0.1)))
    with pytest.raises(ValueError, match="stack layers"):
        with_keyed_dropout(nn.Sequential(nn.LSTM(4, 4, 2, dropout=0.1)))


def test_dropped_paths_belong_to_examples():
    path = KeyedDropPath(0.5)
    number_dropouts(path)
    uniform = torch.tensor([[0.1], [0.9], [0.6]])
    x = torch.ones(3, 2, 4, 4)
    with keyed(lambda salt, count: uniform[:, :count]):
        y = path(x)
    assert torch.equal(y, x * torch.tensor([0.0, 2.0, 2.0]).view(3, 1, 1, 1))
    assert torch.equal(path.eval()(x), x)


def test_efficientnet_of_torchvision_gets_keyed_paths():
    network = TorchvisionNetwork(3, 5, "efficientnet_b0", norm="group")
    assert any(isinstance(m, KeyedDropPath) for m in network.modules())
    assert not any(type(m).__name__ == "StochasticDepth" and m.p for m in network.modules())


@pytest.mark.parametrize("arch", ["Unet", "FPN", "Linknet"])
def test_segmentation_networks_keep_the_image_size(arch):
    network = SegmentationNetwork(1, 11, arch, "tu-test_resnet", norm="group", options={"encoder_depth": 5})
    assert network.eval()(torch.randn(2, 1, 64, 64)).shape == (2, 11, 64, 64)
    assert network.name == f"{arch}-tu-test_resnet"
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: TorchvisionNetwork(3, 10, "resnet19"),
        lambda: TorchvisionNetwork(3, 10, options={"colour": 1}),
        lambda: TimmNetwork(3, 10, "resnet19"),
        lambda: TimmNetwork(3, 10, options={"colour": 1}),
        lambda: SegmentationNetwork(3, 10, "Onet"),
        lambda: SegmentationNetwork(3, 10, encoder_name="resnet19"),
        lambda: SegmentationNetwork(3, 10, options={"colour": 1}),
    ],
)
def test_unknown_names_are_refused_in_a_sentence(make):
    with pytest.raises(ValueError, match="refuses"):
        make()
