"""Makes what is not at hand: a model, an adapter, an optimizer state for the others.

inputs.py model CASE          CASE/model: a tiny Llama of random weights
inputs.py adapter CASE RANK   CASE/checkpoint: a random LoRA of q, k, v and o of CASE/model
inputs.py optimizer CASE      CASE/checkpoint/optimizer.pt, from the optimizer.safetensors there
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import reference

TOKENIZER = Path(__file__).resolve().parents[2] / "tests/fixtures/tiny-llama"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
CONTEXT = 2048


def model(case):
    """4 layers of 256, 3.4 million parameters, with the tokenizer of the tests' model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        # Larger than usual, so that a layer hands on as much as it is given.
        initializer_range=0.06,
    )
    LlamaForCausalLM(config).save_pretrained(case / "model")
    shutil.copy(TOKENIZER / "tokenizer.json", case / "model")
    settings = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    settings["model_max_length"] = CONTEXT
    (case / "model" / "tokenizer_config.json").write_text(json.dumps(settings))


def adapter(case, rank):
    """As the paper has it, but for the rank. B is not zero, or A would have no gradient."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(case / "model", dtype=torch.float32)
    config = LoraConfig(
        r=int(rank), lora_alpha=4 * int(rank), target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    lora = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in reference.lora_parameters(lora):
            if "lora_B" in name:
                parameter.normal_(0, 1e-3)
    lora.save_pretrained(case / "checkpoint")
    log = [{"epoch": 1.0, "learning_rate": 2e-5, "loss": 1.0, "step": 1}]
    state = {"epoch": 1.0, "global_step": 1, "log_history": log}
    (case / "checkpoint" / "trainer_state.json").write_text(json.dumps(state))


def optimizer(case):
    """The state as torch.optim.AdamW writes it, in one parameter group.

    The Trainer writes two, of which bergson 2.5.1 cannot map the second for an adapter.
    """
    lora = reference.load(case)
    named = reference.lora_parameters(lora)
    # bergson counts parameters in this order.
    assert [name for name, _ in named] == list(get_peft_model_state_dict(lora))
    exp_avg, exp_avg_sq, step = reference.moments(case, lora)
    adamw = torch.optim.AdamW([parameter for _, parameter in named], weight_decay=0.0)
    sizes = [parameter.numel() for _, parameter in named]
    for (_, parameter), m, v in zip(named, exp_avg.split(sizes), exp_avg_sq.split(sizes)):
        adamw.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": m.view_as(parameter).clone(),
            "exp_avg_sq": v.view_as(parameter).clone(),
        }
    torch.save(adamw.state_dict(), case / "checkpoint" / "optimizer.pt")


MAKERS = {"model": model, "adapter": adapter, "optimizer": optimizer}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in MAKERS:
        sys.exit(__doc__)
    MAKERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
