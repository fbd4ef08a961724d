"""AdamW on float32 master weights, with a state that goes to disk as safetensors."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fastslow.errors import DivergedError
from fastslow.slow.finite import check_finite, non_finite_tensor
from fastslow.slow.local.moments import embeddings_of, make_adamw, moments_of, restore_moments
from fastslow.slow.settings import SlowConfig
from fastslow.text import shown


class MasterAdamW:
    """AdamW over the trainable parameters of a model.

    Float32 parameters are their own masters. bfloat16 parameters get a float32 master each: their gradients are summed
    in float32 over micro-batches, and each step writes the rounded master back, so that small updates are not lost.
    """

    def __init__(self, model: torch.nn.Module, config: SlowConfig) -> None:
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            name: p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float())
            for name, p in self.trained.items()
        }
        for name, parameter in self.trained.items():
            if parameter is not self.masters[name]:
                parameter.register_post_accumulate_grad_hook(self._accumulator(self.masters[name]))
        self.max_grad_norm = config.max_grad_norm
        self.moving = False
        # Beside products of bfloat16 the optimiser takes a share of a step that is worth other rounding.
        narrow = any(master is not self.trained[name] for name, master in self.masters.items())
        self.adam = make_adamw(config, self.masters, embeddings_of(model), fused=narrow)

    def step(self, learning_rate: float) -> float:
        """Clip, update, clear the gradients; returns the gradient norm before clipping.

        Where the norm is not finite, weights and state stay as they are.
        Raises: DivergedError where the update left weights that are not finite: they cannot be taken back.
        """
        limit = self.max_grad_norm if self.max_grad_norm is not None else float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters.values(), limit))
        if not math.isfinite(norm):
            self.discard()
            return norm
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        # Where it stays true, an exception has left some parameters behind.
        self.moving = True
        self.adam.step()
        self.discard()
        self._check_weights(learning_rate)
        self._publish()
        self.moving = False
        return norm

    def discard(self) -> None:
        """Clear the gradients."""
        self.adam.zero_grad(set_to_none=True)

    def _check_weights(self, learning_rate: float) -> None:
        # A sum passes NaN and infinity on, and takes one pass; that it overflows by itself is told apart below.
        total = torch.stack([master.detach().sum() for master in self.masters.values()]).sum()
        if not math.isfinite(float(total)) and (name := non_finite_tensor(self.masters)):
            raise DivergedError(
                f"slow.learning_rate: the update at {learning_rate:g} made weights NaN or infinite, first "
                f"in tensor {name!r}"
            )

    def save(self, directory: Path) -> None:
        """Write moments and, where they differ from the parameters, the masters."""
        tensors: dict[str, torch.Tensor] = {}
        steps: dict[str, float] = {}
        for name, master in self.masters.items():
            if master is not self.trained[name]:
                tensors[f"master/{name}"] = master.detach().contiguous()
            step, moments = moments_of(self.adam, master)
            if moments:
                steps[name] = step
                tensors |= {f"{key}/{name}": value.contiguous() for key, value in moments.items()}
        save_file(tensors, directory / "optimizer.safetensors")
        (directory / "optimizer.json").write_text(json.dumps(steps), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote, and forget everything else."""
        tensors = load_file(directory / "optimizer.safetensors")
        steps: dict[str, float] = json.loads((directory / "optimizer.json").read_text(encoding="utf-8"))
        check_finite(tensors, f"the weights and moments in {str(directory / 'optimizer.safetensors')!r}")
        if foreign := sorted(steps.keys() - self.masters.keys()):
            raise ValueError(f"the optimiser's state is of other parameters, such as {shown(foreign[0])}")
        self.discard()
        self.adam.state.clear()
        moments: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for path, tensor in tensors.items():
            key, _, name = path.partition("/")
            moments[name][key] = tensor
        for index, (name, master) in enumerate(self.masters.items()):
            saved = moments[name].pop("master", None)
            if saved is not None:
                master.data.copy_(saved)
            if name in steps:
                restore_moments(self.adam, index, master, steps[name], moments[name])
        self._publish()

    def _publish(self) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                if parameter is not self.masters[name]:
                    parameter.copy_(self.masters[name])

    @staticmethod
    def _accumulator(master: torch.nn.Parameter) -> Any:
        def accumulate(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                if master.grad is None:
                    master.grad = parameter.grad.float()
                else:
                    master.grad.add_(parameter.grad)  # in place: a copy would be as large as the model's largest matrix
                parameter.grad = None

        return accumulate
