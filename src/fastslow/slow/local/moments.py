"""AdamW with moments of 32 bits (torch) or 8 (bitsandbytes): which one a config names, and its state on disk."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from fastslow.errors import ConfigError
from fastslow.slow.settings import SlowConfig

ADAMW = ("exp_avg", "exp_avg_sq")


def check_optimiser(slow: SlowConfig, device: torch.device) -> None:
    """Raises ConfigError where 8-bit moments are asked for without a GPU, or without bitsandbytes."""
    name = f"slow.optimiser: {slow.optimiser!r}"
    if slow.optimiser == "adamw":
        return
    if device.type != "cuda":
        raise ConfigError(f"{name} is for a GPU, and the model runs on {device.type}: take slow.optimiser: adamw")
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"{name} needs the package bitsandbytes: pip install 'fastslow[8bit]', or take adamw")


def make_adamw(
    slow: SlowConfig, masters: Mapping[str, torch.nn.Parameter], embeddings: frozenset[str], *, fused: bool = False
) -> torch.optim.Optimizer:
    """AdamW over the masters; `fused`: torch's own in one pass over memory, with other rounding. Moments of
    `embeddings` keep 32 bits, and so do those of tensors below 4,096 elements.

    Source: arXiv 2110.02861: rare tokens make the moments of embeddings uneven.
    """
    settings: dict[str, Any] = {"lr": slow.learning_rate, "betas": slow.betas, "weight_decay": slow.weight_decay}
    if slow.optimiser == "adamw":
        return torch.optim.AdamW(masters.values(), fused=fused or None, **settings)
    from bitsandbytes import optim

    made = {"adamw_8bit": optim.AdamW8bit, "paged_adamw_8bit": optim.PagedAdamW8bit}[slow.optimiser]
    adam: torch.optim.Optimizer = made(list(masters.values()), **settings)
    # The library keeps one table of exceptions for all optimisers of a process; this one gets its own.
    manager = optim.GlobalOptimManager.__new__(optim.GlobalOptimManager)
    manager.initialize()
    manager.index2config = {(0, i): {"optim_bits": 32} for i, name in enumerate(masters) if name in embeddings}
    adam.mng = manager  # type: ignore[attr-defined]
    return adam


def embeddings_of(model: torch.nn.Module) -> frozenset[str]:
    """Names of the parameters that are tables of embeddings."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in tables)


def moments_of(adam: torch.optim.Optimizer, master: torch.nn.Parameter) -> tuple[float, dict[str, torch.Tensor]]:
    """Steps so far and what is to be saved of a parameter's state; 0 and nothing where it has none."""
    state = adam.state.get(master)
    if not state:
        return 0.0, {}
    # Quantisation tables are the library's constants.
    kept = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and k != "step" and not k.startswith("qmap")}
    return float(state["step"]), kept


def restore_moments(
    adam: torch.optim.Optimizer,
    index: int,
    master: torch.nn.Parameter,
    step: float,
    moments: Mapping[str, torch.Tensor],
) -> None:
    """Give parameter `index` the state that `moments_of` gave. Raises ValueError where these are no moments of it."""
    if isinstance(adam, torch.optim.AdamW):
        if {name: value.shape for name, value in moments.items()} != dict.fromkeys(ADAMW, master.shape):
            raise ValueError(f"{sorted(moments)} are no moments of parameter {index}")
        adam.state[master] = {"step": torch.tensor(step), **{k: v.to(master.device) for k, v in moments.items()}}
        return
    # The library allocates, since its tensors may lie in paged memory.
    adam.init_state(adam.param_groups[0], master, 0, index)  # type: ignore[attr-defined]
    state = adam.state[master]
    state["step"] = int(step)
    for name, value in moments.items():
        state[name].copy_(value)
