"""Networks: shapes, parameter counts against the published ones, and the exactness that splits need."""

import math
from collections.abc import Callable

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from tasks.networks.cifar import CifarAlexNet, CifarMobileNetV2, CifarResNet, CifarVGG
from tasks.networks.cnn import LeNet, SimpleCNN, SmallCNN
from tasks.networks.drn import DRND22, drn_d_22_levels
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
    # 3,274,634 parameters
    assert count(SimpleCNN(1, 10)) == 3_274_634
    assert count(LeNet(1, 10)) == 61_706  # LeNet-5 with a full second convolution, as in Keras's examples
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
    lambda norm: TimmNetwork(3, 7, "test_efficientnet", norm=norm),  # normalization and activation in one layer
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


@pytest.mark.parametrize(
    "make",
    [
        lambda: LSTM(50, 16, 16, layers=2, dropout=0.4),
        lambda: Transformer(50, 16, 2, 2, dropout=0.4),
        lambda: SimpleCNN(1, 10, (4, 4), (16,), dropout=0.4),
        lambda: TorchvisionNetwork(1, 10, "efficientnet_b0", norm="group"),  # dropped paths too
        lambda: TimmNetwork(1, 10, "test_vit", options={"img_size": 32, "proj_drop_rate": 0.4, "drop_path_rate": 0.4}),
    ],
)
def test_dropout_does_not_depend_on_how_a_batch_is_cut(make):
    torch.manual_seed(0)
    network = make().double()
    number_dropouts(network)
    text = isinstance(network, (LSTM, Transformer))
    inputs = torch.randint(0, 50, (4, 6)) if text else torch.randn(4, 1, 32, 32, dtype=torch.float64)

    def run(examples):
        def draw(salt, count):
            seeds = [torch.Generator().manual_seed(1000 * salt + i) for i in examples]
            return torch.stack([torch.rand(count, generator=seed, dtype=torch.float64) for seed in seeds])

        with keyed(draw):
            return network(inputs[examples])

    whole = run([0, 1, 2, 3])
    torch.testing.assert_close(torch.cat([run([0, 1, 2]), run([3])]), whole, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(whole, network.eval()(inputs))


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


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        # kuangliu/pytorch-cifar's networks, as tabulated by others: ResNet-18 and -34 11,173,962 and 21.282 M
        # (huyvnphan/PyTorch_CIFAR10), VGG-11 9,231,114 and VGG-16 14,728,266
        (lambda: CifarResNet(3, 10), 11_173_962),
        (lambda: CifarResNet(3, 10, (3, 4, 6, 3)), 21_282_122),
        (lambda: CifarVGG(3, 10, 11), 9_231_114),
        (lambda: CifarVGG(3, 10, 16), 14_728_266),
        # osmr/imgclsmob: ResNet-20 for CIFAR-10; it checks the form of which ResNet-8 is the smallest
        (lambda: CifarResNet(3, 10, (3, 3, 3), 16), 272_474),
        # no published count found: 432 + 32, blocks 4672, 14,528 and 57,728, head 650
        (lambda: CifarResNet(3, 10, (1, 1, 1), 16), 78_042),
        # bearpaw/pytorch-classification: 2.47 M; the last digits by hand
        (lambda: CifarAlexNet(3, 10), 2_472_266),
        # huyvnphan/PyTorch_CIFAR10: 2.237 M, torchvision's network at stride 1
        (lambda: CifarMobileNetV2(3, 10), 2_236_682),
        # torchvision's own table: 25,557,032
        (lambda: TorchvisionNetwork(3, 1000, "resnet50"), 25_557_032),
        # osmr/imgclsmob: DRN-D-22 for ImageNet 16,393,752, with a 1x1 convolution to 1000 classes
        (lambda: DRND22(3, 1000), 16_393_752),
    ],
)
def test_networks_have_the_published_counts(network, parameters):
    assert count(network()) == parameters


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    "make",
    [
        lambda c, norm: CifarResNet(c, 7, (1, 1, 1), 16, norm=norm),
        lambda c, norm: CifarVGG(c, 7, norm=norm),
        lambda c, norm: CifarMobileNetV2(c, 7, norm=norm),
        lambda c, norm: CifarAlexNet(c, 7),
    ],
)
def test_cifar_networks_take_small_images_of_any_depth(make, norm, size):
    network = make(1 if size == 28 else 3, norm).eval()
    assert network(torch.randn(2, 1 if size == 28 else 3, size, size)).shape == (2, 7)
    assert norm == "batch" or not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_cifar_networks_keep_the_resolution_of_their_form():
    images = torch.randn(2, 3, 32, 32)
    assert CifarResNet(3, 10).eval().features(images).shape == (2, 512, 4, 4)
    assert CifarResNet(3, 10, (1, 1, 1), 16).eval().features(images).shape == (2, 64, 8, 8)
    assert CifarMobileNetV2(3, 10).eval().network.features(images).shape == (2, 1280, 4, 4)
    assert CifarVGG(3, 10, 16).eval().features(images).shape == (2, 512, 1, 1)
    assert CifarAlexNet(3, 10).eval().features(images).shape == (2, 256, 1, 1)


def test_drn_has_its_strides_and_dilations():
    levels = drn_d_22_levels(1)
    x, strides = torch.randn(1, 1, 64, 64), []
    for level in levels.eval():
        x = level(x)
        strides.append(64 // x.shape[-1])
    assert strides == [1, 1, 2, 4, 8, 8, 8, 8, 8]
    dilations = [max(m.dilation[0] for m in level.modules() if isinstance(m, nn.Conv2d)) for level in levels]
    assert dilations == [1, 1, 1, 1, 1, 2, 4, 2, 1]
    assert DRND22(1, 5, norm="group").eval()(torch.randn(2, 1, 64, 48)).shape == (2, 5, 64, 48)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("Unet", {"encoder_depth": 3, "decoder_channels": [32, 16, 8]}),
        ("PSPNet", {"encoder_depth": 3}),
        ("DeepLabV3", {"encoder_output_stride": 8}),
        ("DeepLabV3Plus", {"encoder_output_stride": 8}),
        ("UPerNet", {}),
    ],
)
def test_smp_builds_on_drn(arch, options):
    network = SegmentationNetwork(1, 5, arch, "drn_d_22", norm="group", options=options).eval()
    assert network(torch.randn(2, 1, 64, 64)).shape == (2, 5, 64, 64)


def test_drn_refuses_other_depths():
    with pytest.raises(ValueError, match="3 or 5"):
        SegmentationNetwork(1, 5, "Unet", "drn_d_22", options={"encoder_depth": 4, "decoder_channels": [8, 8, 8, 8]})


IMAGES = [
    ("cnn.SmallCNN", {"channels": [8, 8, 8], "groups": 4}),
    ("cnn.SimpleCNN", {"dropout": 0.4}),
    ("cnn.LeNet", {}),
    ("cifar.CifarResNet", {"blocks": [1, 1, 1], "width": 16, "norm": "group"}),
    ("cifar.CifarVGG", {"depth": 16}),
    ("cifar.CifarAlexNet", {}),
    ("cifar.CifarMobileNetV2", {"zero_init_residual": True}),
    ("drn.DRND22", {"norm": "none"}),
    ("segmentation.SegmentationNetwork", {"encoder_name": "drn_d_22", "options": {"encoder_depth": 5}}),
    ("zoo.TorchvisionNetwork", {"name": "efficientnet_b0", "options": {"dropout": 0.1}}),
    ("zoo.TimmNetwork", {"name": "test_vit", "options": {"img_size": 32}}),
]
TEXT = [("language.LSTM", {"layers": 2, "dropout": 0.2}), ("language.Transformer", {"heads": 2})]


@pytest.mark.parametrize(("name", "options"), IMAGES + TEXT)
def test_yaml_can_name_every_network(name, options):
    text = (name, options) in TEXT
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=Callable[[int], nn.Module] if text else Callable[[int, int], nn.Module])
    config = parser.parse_object({"network": {"class_path": f"tasks.networks.{name}", "init_args": options}})
    network = parser.instantiate(config).network(*((50,) if text else (1, 10))).eval()
    inputs = torch.zeros(2, 12, dtype=torch.long) if text else torch.zeros(2, 1, 32, 32)
    assert network(inputs).shape[:2] == ((2, 12) if text else (2, 10))
