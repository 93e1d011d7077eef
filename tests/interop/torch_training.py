#!/usr/bin/env python3
"""Trains one network with PyTorch and with Stagecraft, from the same weights on the same text, and compares the losses.

    tests/interop/torch_training.py --stagecraft build/release/cli/stagecraft [--backend cpu|cuda] [--stages 1]
                                    [--layers 4 --hidden 256 --heads 4 --sequence 256 --samples 8] [--text FILE]...

Needs torch and transformers. GPT-2 without dropout, random weights written by transformers as safetensors, in fp32, AdamW
with warm-up, weight decay on matrices and clipping. A token is a byte of the text (default: this project's
documentation); each step draws other samples, the same for both. Exits with 1 if a loss differs by more than 1e-4.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel

STEPS, RATE, WARM_UP, SEED = 50, 1e-3, 10, 1
ROOT = pathlib.Path(__file__).resolve().parents[2]


def mix(z):
    """The output function of splitmix64, as runtime/token_data.cpp has it."""
    mask = (1 << 64) - 1
    z = (z + 0x9e3779b97f4a7c15) & mask
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9 & mask
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb & mask
    return z ^ (z >> 31)


def batch(tokens, step, samples, sequence):
    """The samples that Stagecraft draws in a step: `sequence` tokens and one more each."""
    firsts = (mix(mix(mix(SEED) ^ step) ^ index) * (len(tokens) - sequence) >> 64 for index in range(samples))
    return [tokens[first:first + sequence + 1] for first in firsts]


def train_with_torch(options, folder, tokens, device):
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    config = GPT2Config(n_layer=options.layers, n_embd=options.hidden, n_head=options.heads,
                        n_positions=options.sequence, vocab_size=50257,
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(config).to(device)
    model.save_pretrained(folder)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                                  lr=RATE, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / WARM_UP)
        text = torch.tensor(batch(tokens, step, options.samples, options.sequence), device=device)
        logits = model(text[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def train_with_stagecraft(options, folder, data):
    device = {"kind": "gpu" if options.backend == "cuda" else "cpu", "memory": "8 GiB", "memory_bandwidth": "1 TB/s",
              "peak": {"fp32": "1 TFLOP/s"}}
    if options.backend == "cuda" and options.stages > 1:
        device["slice"] = {"multiprocessors": 128 // options.stages // 8 * 8, "of": 132}
    cluster = {"name": "here", "device_types": {"device": device},
               "nodes": [{"devices": [{"type": "device", "count": options.stages}],
                          "local": {"kind": "memory", "latency": "5 us", "bandwidth": "100 GB/s"}}]}
    (folder / "cluster.json").write_text(json.dumps(cluster))
    plan = folder / "plan.json"
    run = lambda *arguments: subprocess.run([options.stagecraft, *map(str, arguments)], check=True,
                                            stdout=subprocess.PIPE, text=True).stdout
    run("plan", "--network", folder / "config.json", "--cluster", folder / "cluster.json", "--global-batch",
        options.samples, "--micro-batch", 2, "--sequence", options.sequence, "--stages", options.stages, "--replicas", 1,
        "--schedule", "1f1b", "--recompute", "none", "--precision", "fp32", "-o", plan)
    summary = run("run", plan, "--data", data, "--weights", folder, "--seed", SEED, "--steps", STEPS,
                  "--learning-rate", RATE,
                  "--learning-rate-schedule", "constant", "--warmup-steps", WARM_UP, "--weight-decay", 0.1, "--clip", 1,
                  "--backend", options.backend, "--oversubscribe", "--json")
    return json.loads(summary)["losses"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stagecraft", default="build/release/cli/stagecraft")
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", default=sorted(ROOT.glob("docs/*.md")))
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp())
    tokens = b"".join(file.read_bytes() for file in options.text)
    (folder / "text.bin").write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))
    tokens = list(tokens)
    expected = train_with_torch(options, folder, tokens, "cuda" if options.backend == "cuda" else "cpu")
    actual = train_with_stagecraft(options, folder, folder / "text.bin")
    worst = max(abs(a - b) for a, b in zip(actual, expected, strict=True))
    print(f"{STEPS} steps, {options.stages} stages, {options.backend}: losses {expected[0]:.4f} to {expected[-1]:.4f}, "
          f"largest difference {worst:.2e}")
    sys.exit(0 if worst <= 1e-4 else 1)


if __name__ == "__main__":
    main()
