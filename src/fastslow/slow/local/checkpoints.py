"""The checkpoints of the local engine: a directory for transformers or PEFT, and beside it what resuming needs."""

import json
from pathlib import Path

import torch

from fastslow.slow.finite import check_finite
from fastslow.slow.local import loading, lora
from fastslow.slow.local.learner import LocalLearner
from fastslow.slow.settings import ModelConfig


class LocalCheckpoints:
    """`Checkpoints` of a learner, its policy and its optimiser."""

    def __init__(self, learner: LocalLearner) -> None:
        self.learner, self.policy = learner, learner.policy

    def save(self, directory: Path, *, resumable: bool) -> None:
        """As `Checkpoints.save`."""
        directory.mkdir(parents=True, exist_ok=True)
        if self.policy.has_adapter:
            lora.save_lora(self.policy.adapted, directory, self.policy.plain_config)
        else:
            self.policy.model.save_pretrained(str(directory))
        self.policy.tokenizer.save_pretrained(directory)
        if resumable:
            state = directory / "resume"
            state.mkdir(exist_ok=True)
            self.learner.optimiser.save(state)
            version = {"policy_version": self.learner.policy_version}
            (state / "engine.json").write_text(json.dumps(version), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """As `Checkpoints.load`."""
        state = directory / "resume"
        self._load_weights(directory)
        self.learner.optimiser.load(state)
        record = json.loads((state / "engine.json").read_text(encoding="utf-8"))
        self.learner.policy_version = int(record["policy_version"])

    def _load_weights(self, directory: Path) -> None:
        policy = self.policy
        if policy.config.lora is not None:
            from peft import load_peft_weights, set_peft_model_state_dict

            weights = load_peft_weights(str(directory), device=str(policy.device))
            check_finite(weights, f"the weights of the adapter {str(directory)!r}")
            set_peft_model_state_dict(policy.model, weights)
            return
        policy.base_model()  # the frozen copy is taken from the original weights, before they are replaced
        saved = ModelConfig(
            name=str(directory), dtype=policy.config.dtype, trust_remote_code=policy.config.trust_remote_code
        )
        # On the host: a GPU need not hold the weights twice.
        policy.model.load_state_dict(loading.load_model(saved, torch.device("cpu"), policy.dtype).state_dict())
