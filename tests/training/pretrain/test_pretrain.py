"""Images by formula, the lesson made of them, and the backbone that comes out."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbone import open_backbone
from models.session import open_session
from training.backbones.sources import pretrained_backbone
from training.engine.loop import Schedule
from training.errors import TrainingError
from training.networks.residual import ResidualConfig, ResidualNetwork
from training.pretrain.defects import DEFECTS, MISPLACED, photograph, photograph_defect
from training.pretrain.episodes import EpisodeSize, draw_episode
from training.pretrain.patterns import PATTERNS, TILE
from training.pretrain.photograph import draw_part, lay
from training.pretrain.pretraining import HELD_OUT, PretrainSettings, judge, pretrain
from training.pretrain.product import draw_library, draw_product
from training.pretrain.shapes import SHAPES
from training.pretrain.task import Task, relative_distances
from training.progress import Reporter

SIDE = 64
TINY = PretrainSettings(
    schedule=Schedule(6, 2, 2e-3),
    network=ResidualConfig(4, (4, 8, 8), (1, 1, 1)),
    size=EpisodeSize(references=2, good=1, defective=2, side=SIDE),
    materials=1,
    shapes=1,
    precision="float32",
)


@pytest.fixture(scope="module")
def library():
    return draw_library(0, families=("spectrum", "lattice", "cast"), materials=2, shapes=3)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_its_seeds_and_has_no_seam(name):
    first, again, other = (PATTERNS[name](np.random.default_rng(seed)) for seed in (3, 3, 4))
    for field, same in zip(first, again, strict=True):
        assert field.shape == (TILE, TILE)
        assert field.mean() == pytest.approx(0, abs=1e-3)
        assert field.std() == pytest.approx(1, abs=1e-3)
        np.testing.assert_array_equal(field, same)
    assert np.abs(first[0] - other[0]).mean() > 0.1
    if name != "lettering":  # print ends where the sheet does
        within = np.abs(np.diff(first[0], axis=0)).mean(1)
        assert np.abs(first[0][-1] - first[0][0]).mean() <= within.max() * 1.5


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_covers_a_part_of_its_box(name):
    for seed in range(5):
        covered, height = SHAPES[name](np.random.default_rng(seed))
        assert 0.02 < covered.mean() < 0.98
        assert covered.min() >= 0 and covered.max() <= 1
        assert height.min() >= 0 and height.max() <= 1


@pytest.mark.parametrize("kind", [*DEFECTS, *MISPLACED])
def test_a_defect_is_marked_where_it_can_be_seen_and_nowhere_else(library, kind):
    seen = 0
    for number in range(6):
        rng = np.random.default_rng(number)
        product = draw_product(library, rng)
        part = draw_part(product, rng)
        good = photograph(product, part, SIDE)
        bad, changed = photograph_defect(product, part, SIDE, kind, rng)
        apart = np.abs(bad.astype(int) - good).max(2)
        assert (apart[changed] > 10).all() and (apart[~changed] <= 10).all()
        seen += changed.sum() > 3
    assert seen >= 3


def test_what_lies_outside_of_the_frame_is_not_seen(library):
    rng = np.random.default_rng(0)
    product = draw_product(library, rng)
    part = draw_part(product, rng)
    shape, ground = library.shapes[0], product.layers[:1]
    there, away = (
        replace(product, layers=(*ground, replace(ground[0], shape=shape, centre=(at, at))))
        for at in (0.5, 9.0)
    )
    bare = lay(replace(product, layers=ground), part, SIDE)
    np.testing.assert_array_equal(lay(away, part, SIDE).albedo, bare.albedo)
    assert (lay(there, part, SIDE).height != bare.height).any()


def test_parts_of_a_product_are_alike_and_defects_are_few(library):
    episode = draw_episode(library, EpisodeSize(4, 2, 4, SIDE), np.random.default_rng(1))
    assert episode.images.shape == (10, SIDE, SIDE, 3)
    assert (episode.changed[:6] == 0).all()
    assert (episode.changed[6:] == 1).any()
    again = draw_episode(library, EpisodeSize(4, 2, 4, SIDE), np.random.default_rng(1))
    np.testing.assert_array_equal(episode.images, again.images)


def test_distances_are_those_to_the_nearest_good_cell_of_another_image():
    features = torch.randn(1, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    far = relative_distances(features, references=3)[0]
    known = features[0, :3].permute(0, 2, 1).reshape(6, 3)
    standard = (features[0].permute(0, 2, 1) - known.mean(0)) / known.std(0)
    expected = torch.empty(4, 2)
    for image in range(4):
        for cell in range(2):
            expected[image, cell] = min(
                (standard[image, cell] - standard[other, place]).square().mean().sqrt().log()
                for other in range(3)
                for place in range(2)
                if other != image
            )
    torch.testing.assert_close(far, expected - expected[:3].mean(), rtol=1e-4, atol=1e-4)


def test_the_lesson_is_learned():
    """Whether the distances of defects grow in comparison, on the products that are learned."""
    library = draw_library(0, families=("spectrum", "cast"), materials=1, shapes=1)
    size = EpisodeSize(3, 1, 3, SIDE)
    episodes = [draw_episode(library, size, np.random.default_rng(n)) for n in range(3)]
    images = torch.from_numpy(np.stack([e.images for e in episodes])).movedim(-1, 2) / 255
    changed = torch.from_numpy(np.stack([e.changed for e in episodes]))
    torch.manual_seed(0)
    task = Task(ResidualNetwork(TINY.network), half=False)
    optimiser = torch.optim.AdamW(task.parameters(), 5e-3)
    losses = []
    for _ in range(40):
        loss = task(images, 3, changed)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_an_interrupted_pretraining_goes_on_to_the_same_backbone(tmp_path):
    whole = pretrain(TINY, tmp_path / "whole.pt", products=1)
    assert len(whole.losses) == 6
    assert np.isfinite([whole.known.images, whole.known.cells, whole.new.cells]).all()

    class Stopped(Exception):
        pass

    class Stopping(Reporter):
        """Ends the run as a power cut would: between two steps."""

        @contextmanager
        def bar(self, title, total):
            def advance(done, note):
                if done == 3:
                    raise Stopped

            yield advance

    path = tmp_path / "cut.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.engine.loop.SAVE_EVERY_S", -1.0)
        with pytest.raises(Stopped):
            pretrain(TINY, path, reporter=Stopping(), products=2)
    resumed = pretrain(TINY, path, resume=True, products=1)
    assert resumed.losses == whole.losses
    for name, weights in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], weights)
    with pytest.raises(TrainingError, match="another training"):
        pretrain(replace(TINY, seed=1), path, resume=True)


def test_what_comes_out_is_a_backbone_that_computes_the_same(tmp_path):
    torch.manual_seed(0)
    network = ResidualNetwork().eval()
    backbone = open_backbone(pretrained_backbone(network, tmp_path, name="own", origin="a test"))
    stages = backbone.manifest.stages
    assert [(s.stride, s.channels) for s in stages] == [(4, 48), (8, 96), (16, 192)]
    assert len(backbone.model) <= 8e6
    image = np.random.default_rng(0).random((2, 3, 96, 64), np.float32)
    served = open_session(backbone.model).run(None, {"pixels": image})
    with torch.inference_mode():
        for ours, theirs in zip(network(torch.from_numpy(image)), served, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=2e-2)


def test_the_embedded_backbone_tells_defects_of_products_that_it_never_saw(backbone):
    library = draw_library(7, families=HELD_OUT, materials=3, shapes=5)
    size = EpisodeSize(references=8, good=6, defective=10, side=128)
    episodes = [draw_episode(library, size, np.random.default_rng([7, n])) for n in range(6)]
    session = open_session(backbone.model)

    def embedded(images):
        maps = session.run(None, {"pixels": images.numpy()})
        return [torch.from_numpy(stage) for stage in maps]

    torch.manual_seed(0)
    learned, untrained = (
        judge(network, iter(episodes)) for network in (embedded, ResidualNetwork().eval())
    )
    assert learned.cells > 0.85
    assert learned.cells > untrained.cells + 0.03
    assert learned.images > untrained.images + 0.05


def test_what_is_held_out_is_never_learned():
    assert set(HELD_OUT) < set(PATTERNS)
    assert not set(HELD_OUT) & set(TINY.families)


def test_distances_keep_their_digits_where_all_else_is_computed_in_half():
    """As the training loop has it on a GPU."""
    library = draw_library(0, families=("spectrum",), materials=1, shapes=1)
    episode = draw_episode(library, EpisodeSize(3, 1, 3, SIDE), np.random.default_rng(0))
    torch.manual_seed(0)
    task = Task(ResidualNetwork(TINY.network), half=False)
    images, changed = torch.from_numpy(episode.images), torch.from_numpy(episode.changed)[None]
    images = images.movedim(-1, 1)[None] / 255
    plain = task(images, 3, changed)
    with torch.autocast("cpu", torch.bfloat16):
        assert task(images, 3, changed).item() == pytest.approx(plain.item(), rel=1e-5)
