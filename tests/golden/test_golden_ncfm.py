"""NCFM's discrepancy, sampling network, decoding and canvases give what the published code gave."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from vectors import FOLDER, read

from ddkit.images.formation import Formation
from ddkit.images.groups import Groups
from ddkit.networks.teacher import corrected
from ddkit.networks.training import mixed_loss
from ddkit_methods.ncfd import characteristic, discrepancy
from ddkit_methods.ncfm_frequencies import SamplingNetwork

RELATIVE, ABSOLUTE = 1e-9, 1e-12


def loss_of(t, real, syn, frequencies):
    one = [Groups.of(torch.zeros(len(x), dtype=torch.int64)) for x in (real, syn)]
    functions = [
        characteristic(x, groups, frequencies) for x, groups in zip((real, syn), one, strict=True)
    ]
    amplitude, phase = t["alpha_beta"].tolist()
    return discrepancy(*functions, amplitude, phase).sum(), functions


def under(prefix):
    tensors, _ = read("ncfd_edge")
    own = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(prefix)}
    assert own, f"ncfd_edge has no {prefix}.*"
    return own


def check_wide(t, relative=RELATIVE):
    """Loss, characteristic functions and gradients in float64."""
    real = t["feat_real"]
    syn, frequencies = t["feat_syn"].clone().requires_grad_(), t["t"].clone().requires_grad_()
    loss, functions = loss_of(t, real, syn, frequencies)
    for function, side in zip(functions, ("real", "syn"), strict=True):
        want = torch.stack([t[f"cf_{side}_re"], t[f"cf_{side}_im"]], -1)
        close(function[0], want)
    close(loss, t["loss"].sum())
    close(300 * loss, t["loss_x300"].sum())
    slopes = torch.autograd.grad(loss, (syn, frequencies))
    for slope, name in zip(slopes, ("grad_feat_syn", "grad_t"), strict=True):
        close(slope, t[name], relative)


def close(got, want, relative=RELATIVE):
    torch.testing.assert_close(got.detach(), want, rtol=relative, atol=ABSOLUTE)


def check_narrow(t):
    """The same in float32, with the README's tolerances."""
    real, start, frequencies = (t[k].float() for k in ("feat_real", "feat_syn", "t"))
    syn = start.requires_grad_()
    loss, _ = loss_of(t, real, syn, frequencies)
    assert loss.item() == pytest.approx(t["loss"].item(), rel=1e-5)
    (slope,) = torch.autograd.grad(loss, syn)
    want = t["grad_feat_syn"]
    torch.testing.assert_close(slope.double(), want, rtol=1e-3, atol=1e-6 * want.abs().max().item())


def test_gaussian_frequencies():
    t, _ = read("ncfd_gauss")
    check_wide(t)
    check_narrow(t)
    close(t["loss_x300"], t["match_loss"])


def test_gradient_by_unit_features():
    t, _ = read("ncfd_gauss")
    unit = torch.nn.functional.normalize(t["feat_syn"]).requires_grad_()
    angle = unit @ t["t"].T
    syn = torch.stack([angle.cos(), angle.sin()], -1).mean(0)
    real = torch.stack([t["cf_real_re"], t["cf_real_im"]], -1)
    loss = discrepancy(real, syn, *t["alpha_beta"].tolist())
    close(torch.autograd.grad(loss, unit)[0], t["grad_feat_syn_normalised"])


@pytest.mark.parametrize("edge", ["amp09", "amp_only", "phase_only", "one_syn"])
def test_edges(edge):
    check_wide(under(edge))
    check_narrow(under(edge))


def test_low_frequencies_keep_their_digits():
    t = under("low_freq")
    check_wide(t, relative=1e-5)
    narrow = {k: v.float() for k, v in t.items()}
    loss, _ = loss_of(t, narrow["feat_real"], narrow["feat_syn"], narrow["t"])
    assert loss.item() == pytest.approx(t["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_identical_sets_have_no_gradient(dtype):
    t = under("identical")
    real = t["feat_real"].to(dtype)
    syn, frequencies = (t[k].to(dtype).requires_grad_() for k in ("feat_syn", "t"))
    loss, _ = loss_of(t, real, syn, frequencies)
    assert loss.item() <= 1e-6
    for slope in torch.autograd.grad(loss, (syn, frequencies)):
        assert torch.equal(slope, torch.zeros_like(slope))


def test_sampling_network_ascends():
    t, _ = read("ncfd_sampler")
    net = sampler(t)
    tiled = net(t["noise"]).repeat(len(t["t"]) // len(t["noise"]), 1)
    close(tiled, t["t"])
    tiled.retain_grad()
    syn = t["feat_syn"].clone().requires_grad_()
    loss, _ = loss_of(t, t["feat_real"], syn, tiled)
    close(loss, t["loss"].sum())
    ascent = torch.optim.SGD(net.parameters(), lr=rate(), momentum=0.5, maximize=True)
    (300 * loss).backward()
    close(tiled.grad, t["grad_t_x300"])
    close(syn.grad, t["grad_feat_syn_x300"])
    for name, parameter in net.named_parameters():
        close(parameter.grad, t[f"grad_x300.t_layers_list.{name.removeprefix('layers.')}"])
    ascent.step()
    for name, parameter in net.named_parameters():
        close(parameter, t[f"after_ascent.t_layers_list.{name.removeprefix('layers.')}"])
    for name, buffer in net.named_buffers():
        if buffer.is_floating_point():
            close(buffer, t[f"buffer_after.t_layers_list.{name.removeprefix('layers.')}"])


def test_distinct_rows_are_enough():
    """Tiling repeats rows; leaving it out changes neither loss nor the network's gradient."""
    t, _ = read("ncfd_sampler")
    net = sampler(t)
    loss, _ = loss_of(t, t["feat_real"], t["feat_syn"], net(t["noise"]))
    close(loss, t["loss"].sum())
    (300 * loss).backward()
    for name, parameter in net.named_parameters():
        close(parameter.grad, t[f"grad_x300.t_layers_list.{name.removeprefix('layers.')}"])


def sampler(t):
    prefix = "net.t_layers_list."
    net = SamplingNetwork(t["noise"].shape[1])
    state = {f"layers.{k.removeprefix(prefix)}": v for k, v in t.items() if k.startswith(prefix)}
    net.load_state_dict(state)
    return net.double().train()


def metadata(name):
    path = Path(os.environ.get("DDKIT_GOLDEN") or FOLDER) / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        return file.metadata()


def rate():
    return float(metadata("ncfd_sampler")["lr_sampling_net"])


@pytest.mark.parametrize("name", ["single2", "single3", "multi3", "bound"])
def test_decode(name):
    t, _ = read("ncfm_misc")
    x = t["decode.x"]
    if name == "bound":
        formation = Formation(2, kind="bound", bound=int(metadata("ncfm_misc")["bound"]))
    else:
        kind, factor = name[:-1], int(name[-1])
        formation = Formation(factor, kind=kind)
    got = formation.decode(x, fill=0.5)
    torch.testing.assert_close(got, t[f"decode.{name}"], rtol=0, atol=1e-6)


def test_mix():
    t, _ = read("ncfm_misc")
    images, (ipc, factor) = t["mix.images"], t["mix.ipc_factor"].tolist()
    formation = Formation(factor, order="row", init_resize="nearest")
    got = [formation.compose(own[: ipc * factor**2]) for own in images]
    torch.testing.assert_close(torch.cat(got), t["mix.result"], rtol=0, atol=1e-6)


def test_soft_labels():
    """The teacher's answers, corrected as the released program does, and the students' loss."""
    t, _ = read("ncfm_misc")
    answers = t["soft.teacher_logits"].double().softmax(1)
    targets = corrected(answers, t["soft.target"], logit=True)
    close(targets, t["soft.corrected"].double().softmax(1))
    assert not torch.equal(targets, answers)
    loss = mixed_loss(t["soft.student_logits"].double(), targets, None, 1.0)
    torch.testing.assert_close(loss, t["soft.loss"].double().sum(), rtol=1e-6, atol=1e-7)
