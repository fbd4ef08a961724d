"""The plan of `slow.memory_gib` before any weights load: the same measurement, on tensors that hold nothing."""

import logging

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastslow.config import Config
from fastslow.errors import ConfigError
from fastslow.slow.local import attention, loading, lora
from fastslow.slow.local.frozen import empty_model, freeze
from fastslow.slow.local.memory import MemoryPlan, make_plan
from fastslow.slow.local.recompute import checkpoint_layers
from fastslow.slow.local.scoring import ForestScorer, PlainScorer

logger = logging.getLogger(__name__)


def dry_plan(config: Config, device: torch.device, *, distils: bool) -> MemoryPlan | None:
    """The plan of a run; None where the model cannot be computed without its weights.

    It is taken for a model that shares prefixes where `slow.prefix_sharing` is on: whether it does needs its weights.
    """
    slow, dtype = config.slow, loading.compute_dtype(config.model, device)
    try:
        model = empty_model(config.model, dtype).eval()
        if slow.prefix_sharing:
            attention.use(model)
        if config.model.lora is not None:
            model = lora.add_lora(model, config.model.lora, config.seed)
        elif slow.freeze:
            freeze(model, slow.freeze)
        if slow.activation_checkpointing:
            checkpoint_layers(model)
        scorer = ForestScorer(device, dtype) if slow.prefix_sharing else PlainScorer(device, 0)
        measures = config.evaluation.every > 0 and config.evaluation.kl_problems > 0
        limit = loading.context_limit(model.config.get_text_config())
        with FakeTensorMode(allow_non_fake_inputs=True):
            _place(model, device)
            return make_plan(model, slow, scorer, limit=limit, keeps_base=measures, distils=distils)
    except ConfigError:
        raise
    except Exception as error:  # what a model does that needs numbers, such as choosing experts
        logger.debug("no memory plan without weights: %s", error)
        return None


def _place(model: torch.nn.Module, device: torch.device) -> None:
    """Give every tensor of a model without weights a device; tied ones stay tied. `to` does not take such tensors."""
    placed: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in placed:
                    new: torch.Tensor = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    if isinstance(tensor, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=tensor.requires_grad)
                    placed[id(tensor)] = new
                tensors[name] = placed[id(tensor)]  # type: ignore[assignment]
