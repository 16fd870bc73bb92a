"""EnergyNorm2d in the hands of tools that freeze, synchronise, reset or exempt normalisation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.optim.swa_utils import update_bn

from dtwpt.nn import EnergyNorm2d
from tests.strategies import noise

convert_sync: Any = nn.SyncBatchNorm.convert_sync_batchnorm


def maps(seed: int = 0) -> Tensor:
    scale = torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    x: Tensor = torch.from_numpy(noise(seed, 4, 3, 8, 8)).abs() * scale
    return x


def energy(x: Tensor) -> Tensor:
    return x.square().mean((0, 2, 3)) / 2


def running(norm: EnergyNorm2d) -> Tensor:
    assert norm.running_energy is not None
    return norm.running_energy


def trained() -> tuple[nn.Sequential, EnergyNorm2d]:
    norm = EnergyNorm2d(3).double()
    assert norm.weight is not None
    assert norm.bias is not None
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([1.0, -1.0, 0.0]))
    model = nn.Sequential(norm)
    model(maps())
    return model, norm


def test_frozen_statistics_stay() -> None:
    model, norm = trained()
    before = running(norm).clone()
    for module in model.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    y = model(maps(1))
    assert torch.equal(running(norm), before)
    assert torch.equal(y, model.eval()(maps(1)))


def timm_frozen(model: nn.Module) -> nn.Module:
    timm = pytest.importorskip("timm")
    frozen: nn.Module = timm.layers.freeze_batch_norm_2d(model)
    return frozen


def torchvision_frozen(model: Any) -> Any:
    """As many detectors do by hand."""
    misc = pytest.importorskip("torchvision.ops.misc")
    old = model[0].stats
    frozen = misc.FrozenBatchNorm2d(3, old.eps)
    frozen.load_state_dict({k: v for k, v in old.state_dict().items() if "num" not in k})
    model[0].stats = frozen.double()
    return model


@pytest.mark.parametrize("freeze", [timm_frozen, torchvision_frozen, convert_sync])
def test_converted_holders_compute_the_same(freeze: Callable[..., nn.Module]) -> None:
    model, _ = trained()
    expected = model.eval()(maps(1))
    converted = freeze(model)
    assert torch.allclose(converted.eval()(maps(1)), expected, rtol=1e-6)
    if freeze is not convert_sync:  # frozen, whatever the mode
        assert torch.allclose(converted.train()(maps(1)), expected, rtol=1e-6)
    else:
        assert isinstance(converted, nn.Sequential)
        assert converted[0].sync
        # One process: the batch is all there is.
        plain = trained()[0].train()
        assert torch.allclose(converted.train()(maps(1)), plain(maps(1)), rtol=1e-12)


def test_statistics_can_be_taken_anew() -> None:
    model, norm = trained()
    batches = [maps(1), 2 * maps(2)]
    update_bn(batches, model)
    expected = torch.stack([energy(batch) for batch in batches]).mean(0)
    assert torch.allclose(running(norm), expected)
    assert norm.stats.momentum == 0.1
    assert not norm.stats.running_mean.any()


def test_no_running_statistics() -> None:
    x = maps(1)
    for norm in (
        EnergyNorm2d(3, track_running_stats=False).double(),
        EnergyNorm2d(3).double(),
    ):
        if norm.running_energy is not None:
            torch.func.replace_all_batch_norm_modules_(norm)
        assert norm.running_energy is None
        for mode in (True, False):
            expected = x / (energy(x) + 1e-5).sqrt()[:, None, None]
            assert torch.allclose(norm.train(mode)(x), expected)


def test_no_weight_decay() -> None:
    model, norm = trained()
    utils = pytest.importorskip("torchvision.ops._utils")
    normalisation, others = utils.split_normalization_params(model)
    assert {id(p) for p in normalisation} == {id(norm.weight), id(norm.bias)}
    assert others == []


def _share(rank: int, folder: str, count: int) -> None:
    """Normalise the first image, or the others."""
    torch.set_num_threads(1)
    address = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=count)
    try:
        x = (maps()[:1] if rank == 0 else maps()[1:]).requires_grad_()
        norm = EnergyNorm2d(3, sync=True).double()
        y = norm(x)
        y.pow(3).sum().backward()
        torch.save((y.detach(), x.grad, norm.running_energy), f"{folder}/{rank}.pt")
        # Who leaves while the other still talks takes it down with it.
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    os._exit(0)  # at an ordinary exit threads of gloo's may be in the middle of something


def test_processes_may_hold_different_numbers_of_images(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spawn(_share, (str(tmp_path), 2), nprocs=2)  # type: ignore[no-untyped-call]
    x = maps().requires_grad_()
    norm = EnergyNorm2d(3).double()
    y = norm(x)
    y.pow(3).sum().backward()
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert x.grad is not None
    for k, expected in enumerate((y, x.grad)):
        actual = torch.cat([share[k] for share in shares])
        assert torch.allclose(actual, expected, rtol=1e-12)
    for share in shares:
        assert torch.allclose(share[2], running(norm), rtol=1e-12)


def test_one_image_without_a_batch() -> None:
    x = maps()
    norm = EnergyNorm2d(3).double()
    assert torch.equal(norm(x[0]), norm(x[:1])[0])
    y = norm(x.requires_grad_())
    y.relu_().sum().backward()  # the output may be overwritten
    assert x.grad is not None
