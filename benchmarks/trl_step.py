"""TRL's side of the step benchmark: GRPOTrainer with its own sampler, in a process and an environment of its own.

Run by step_vs_trl.py with the python given as --trl-python. Private parts of TRL 1.16 are used in two places: rows are
taken in the dataset's order, so that a group may hold several system prompts, and generation is timed.
"""

import sys
import tempfile
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler
from workload import Instant, Settings, next_order, reward, step_times, tell

MANY_STEPS = 10_000
# Variants: `masters` keeps float32 weights and computes in bfloat16 under autocast, as fastslow keeps float32 masters;
# `weights` has bfloat16 weights and no masters, so small updates are lost. In float32 the two are the same.
WEIGHTS = {"masters": torch.float32, "weights": torch.bfloat16}


def rewards(completion_ids: list[list[int]], **unused: Any) -> list[float]:
    return [reward(tokens) for tokens in completion_ids]


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer that takes rows in order and knows when its last sampling ended."""

    sampled: Instant
    completion_tokens: int

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:
        return RepeatSampler(
            self.train_dataset, 1, self.args.generation_batch_size, self.args.steps_per_generation, shuffle=False
        )

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        outputs = super()._generate_and_score_completions(inputs)
        self.sampled = Instant.now()
        self.completion_tokens = int(outputs["completion_mask"].sum())
        if not bool((outputs["advantages"] != 0).all()):
            raise RuntimeError("a rollout has no advantage: all of them must have one")
        return outputs

    def never_stop(self) -> None:
        """The end-of-sequence token becomes a token like any other, so that every completion has the same length."""
        self.eos_token_ids: list[int] = []
        self.generation_kwargs["eos_token_id"] = None
        self.generation_config.eos_token_id = None
        self.model.generation_config.eos_token_id = None


class OneStepAnOrder(TrainerCallback):
    """Holds the trainer before each step until the driver asks for it, and reports the step's times."""

    trainer: TimedTrainer
    started: Instant

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if next_order() != "step":
            control.should_training_stop = True
            sys.exit(0)
        self.started = Instant.now()

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        device = {}
        if not args.use_cpu:
            torch.cuda.synchronize()
            device = {"peak_device_bytes": torch.cuda.max_memory_allocated()}
        times = step_times(self.started, self.trainer.sampled, Instant.now(), self.trainer.completion_tokens)
        tell(event="step", **vars(times), **device)


def build_trainer(settings: Settings, directory: str) -> TimedTrainer:
    """A trainer of the workload: cispo, no KL, everything that only costs time switched off."""
    workload = settings.workload
    bfloat16 = settings.precision == "bfloat16"
    rows = workload.messages_R()
    config = GRPOConfig(
        output_dir=directory,
        use_cpu=settings.device == "cpu",
        bf16=bfloat16,
        per_device_train_batch_size=settings.microbatch,
        gradient_accumulation_steps=len(rows) // settings.microbatch,
        num_generations=workload.group,
        max_completion_length=workload.new_tokens,
        gradient_checkpointing=False,
        loss_type="cispo",
        epsilon_high=4.0,
        beta=0.0,
        scale_rewards="group",
        temperature=1.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        max_steps=MANY_STEPS,
        logging_steps=MANY_STEPS,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    dtype = WEIGHTS[settings.variant] if bfloat16 else torch.float32
    callback = OneStepAnOrder()
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(settings.model, dtype=dtype),
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": messages} for messages in rows]),
        processing_class=AutoTokenizer.from_pretrained(settings.model, padding_side="left", truncation_side="left"),
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.never_stop()
    return trainer


def main() -> None:
    settings = Settings.from_json(sys.argv[1])
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as directory:
        trainer = build_trainer(settings, directory)
        template = trainer.processing_class.apply_chat_template
        rendered = [template(m, add_generation_prompt=True, return_dict=True) for m in settings.workload.messages_R()]
        versions = {name: version(name) for name in ("trl", "transformers", "torch")}
        tell(event="ready", contexts=[row["input_ids"] for row in rendered], versions=versions)
        trainer.train()


if __name__ == "__main__":
    main()
