"""What `less-select doctor` times, in plain PyTorch: LESS's recipe at a model's shape.

    pytorch.py SHAPE [--device cuda:0] [--dtype bf16] [--rank 128] [--tokens 371] [--batch 1]

A Llama of random weights with a LoRA on q, k, v and o, the shape of SHAPE/config.json; rows of
random tokens whose second half carries loss, one gradient a row: batches of one, as LESS takes
them, or of several through torch.func (vmap over the adapter's gradient). It needs PyTorch and
nothing else, so it runs where the device is. Speed is told as rows and tokens a second and as
a share of that of large matrix products, with less-select's count of operations.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

TURNS = 5


class Linear(torch.nn.Module):
    """A frozen weight with an adapter, if it has a rank."""

    def __init__(self, d_in, d_out, rank=0):
        super().__init__()
        weight = torch.empty(d_out, d_in).normal_(0, d_in**-0.5)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        if rank:
            self.a = torch.nn.Parameter(torch.empty(rank, d_in).normal_(0, d_in**-0.5))
            self.b = torch.nn.Parameter(torch.empty(d_out, rank).normal_(0, rank**-0.5))
        self.rank = rank

    def forward(self, x):
        y = F.linear(x, self.weight)
        return y + 2 * F.linear(F.linear(x, self.a), self.b) if self.rank else y


class Layer(torch.nn.Module):
    def __init__(self, shape, rank):
        super().__init__()
        width, inner = shape["hidden_size"], shape["intermediate_size"]
        self.heads, self.kv_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
        self.head_dim = shape.get("head_dim") or width // self.heads
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q, self.o = Linear(width, q, rank), Linear(q, width, rank)
        self.k, self.v = Linear(width, kv, rank), Linear(width, kv, rank)
        self.gate, self.up = Linear(width, inner), Linear(width, inner)
        self.down = Linear(inner, width)

    def forward(self, x, cos, sin):
        def by_head(y, heads):
            return y.unflatten(-1, (heads, self.head_dim)).transpose(-2, -3)

        def turned(y):
            a, b = y.chunk(2, -1)
            return y * cos + torch.cat([-b, a], -1) * sin

        n = F.rms_norm(x, x.shape[-1:])
        q, k = turned(by_head(self.q(n), self.heads)), turned(by_head(self.k(n), self.kv_heads))
        v = by_head(self.v(n), self.kv_heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(-2, -3).flatten(-2))
        n = F.rms_norm(x, x.shape[-1:])
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Model(torch.nn.Module):
    def __init__(self, shape, rank):
        super().__init__()
        self.embeddings = Linear(shape["hidden_size"], shape["vocab_size"])
        self.layers = torch.nn.ModuleList(
            Layer(shape, rank) for _ in range(shape["num_hidden_layers"])
        )
        self.theta = shape.get("rope_theta", 10000.0)

    def forward(self, tokens):
        """Mean cross-entropy of the second half of a row, [n_tokens]."""
        x = F.embedding(tokens, self.embeddings.weight)[:-1].unsqueeze(0)
        head_dim = self.layers[0].head_dim
        places = torch.arange(0, head_dim, 2, device=tokens.device) / head_dim
        angles = torch.arange(len(tokens) - 1, device=tokens.device)[:, None] * self.theta**-places
        angles = torch.cat([angles, angles], -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        half = len(tokens) // 2
        logits = self.embeddings(F.rms_norm(x, x.shape[-1:])[0, half - 1 :])
        return F.cross_entropy(logits.float(), tokens[half:])


def flop(model, shape, n_tokens):
    """Operations of a row's gradient, as less-select counts them."""
    n, n_supervised = n_tokens - 1, n_tokens - n_tokens // 2
    weights = [p for name, p in model.layers.named_parameters() if name.endswith("weight")]
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layer = model.layers[0]
    attention = 6 * n * n * len(model.layers) * layer.heads * layer.head_dim
    logits = 4 * n_supervised * shape["vocab_size"] * shape["hidden_size"]
    return 4 * n * sum(p.numel() for p in weights) + attention + logits + 6 * n * adapter


def timed(work, device):
    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def peak(device, dtype):
    """Operations a second of large matrix products."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, device)


def one_by_one(model, rows):
    for row in rows:
        model.zero_grad(set_to_none=True)
        model(row).backward()


def together(model, rows):
    adapter = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    of_row = grad(lambda adapter, row: functional_call(model, adapter, (row,)))
    return vmap(of_row, (None, 0))(adapter, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", type=Path)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda:0"))
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=371)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    shape = json.loads((args.shape / "config.json").read_text())
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with args.device:
        model = Model(shape, args.rank)
        rows = torch.randint(shape["vocab_size"], (max(args.batch, 8), args.tokens))
    work = one_by_one if args.batch == 1 else together
    shares, seconds = [], []
    for turn in range(TURNS + 1):
        speed = peak(args.device, dtype)
        own = timed(lambda: [work(model, part) for part in rows.split(args.batch)], args.device)
        # The first finds nothing warm.
        if turn:
            seconds.append(own / len(rows))
            shares.append(flop(model, shape, args.tokens) / seconds[-1] / speed)
    row = statistics.median(seconds)
    print(
        f"{1 / row:.2f} rows and {args.tokens / row:.0f} tokens a second, batches of"
        f" {args.batch}, {100 * statistics.median(shares):.0f} % of matrix products in {args.dtype}"
    )


if __name__ == "__main__":
    main()
