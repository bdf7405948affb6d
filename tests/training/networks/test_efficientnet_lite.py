import pytest
import torch

from training.networks.efficientnet_lite import VARIANTS, EfficientNetLite


@pytest.mark.parametrize(("name", "number"), [(name, name[-1]) for name in VARIANTS])
def test_stages_equal_those_of_the_reference_implementation(name, number):
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    reference = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=64).eval()
    for module in reference.modules():  # as if it had been trained
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    network = EfficientNetLite(VARIANTS[name])
    network.load(reference.state_dict())
    network.eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = network(image)
        outputs, seen = [], reference._swish(reference._bn0(reference._conv_stem(image)))
        for block in reference._blocks:
            seen = block(seen)
            outputs.append(seen)
        fused = network.fuse()(image)
    assert [tuple(each.shape[2:]) for each in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    for found, folded in zip(maps, fused, strict=True):
        assert any(found.shape == each.shape and torch.equal(found, each) for each in outputs)
        torch.testing.assert_close(folded, found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps[-1], outputs[-1])


def test_weights_of_another_network_are_refused():
    with pytest.raises(RuntimeError):
        EfficientNetLite().load({"conv.weight": torch.zeros(8, 3, 3, 3)})
