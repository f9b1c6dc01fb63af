"""The built-in plans: the published two-step recipe with true freezing (arXiv 2510.10274, Sec. 4.2.1, App. H).

Group rates follow the paper: 1e-4, a tenth of it for prompts and the VLM; the prompt-only stage, which has
nothing but the slot to move, may be faster. A base may ship `adaptation.yaml` with stages tuned for it.
"""

from xvla_platform.specs.plan import AdaptationPlan, LoraSpec, Stage

PROMPT = Stage(
    name="prompt",
    steps=1000,
    batch_size=16,
    lr={"soft_prompts": 1e-3, "action_heads": 1e-3},
    warmup_steps=100,
    eval_every=100,
)
LORA = Stage(
    name="lora",
    steps=2000,
    batch_size=16,
    lr={"soft_prompts": 1e-4, "action_heads": 1e-4, "lora": 1e-4},
    warmup_steps=200,
    eval_every=200,
    lora=LoraSpec(),
)
FULL = Stage(
    name="full",
    steps=5000,
    batch_size=16,
    lr={"soft_prompts": 1e-5, "action_heads": 1e-4, "transformer_core": 1e-4, "vlm": 1e-5},
    warmup_steps=1000,
    eval_every=500,
    dropout=0.1,
    color_jitter=(0.2, 0.2, 0.2),
)


def prompt_only() -> AdaptationPlan:
    """The slot's rows and nothing else."""
    return AdaptationPlan(name="prompt-none", stages=(PROMPT,))


def then_lora() -> AdaptationPlan:
    """The slot, then the slot with low-rank adapters on the policy transformer."""
    return AdaptationPlan(name="prompt-lora", stages=(PROMPT, LORA))


def then_full() -> AdaptationPlan:
    """The slot, then every weight of the base."""
    return AdaptationPlan(name="prompt-full", stages=(PROMPT, FULL))
