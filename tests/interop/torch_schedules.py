#!/usr/bin/env python3
"""Steps a real model with torch.distributed.pipelining from our schedule files, and compares gradients.

    python3 tests/interop/torch_schedules.py FOLDER

FOLDER holds files as `stagecraft show schedule NAME ... --format torch-csv` and `stagecraft export --to torch-csv` write
them; names that end in .comms.csv have communication in them (torch's compute_comms format). Each is loaded by
_PipelineScheduleRuntime._load_csv, unchanged, with a process a rank (gloo, CPU tensors), and run for one step of a small
network with a stage more than linear. The gradients must be those of the network without a pipeline, to 1e-5 relative.
Prints a line a file; exit code 1 if any differs or fails. Needs torch 2.11.
"""

import glob
import os
import re
import socket
import sys
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

WIDTH = 8
SAMPLES = 4  # a micro-batch
ACTION = re.compile(r"\(?(\d+)(F|B|I|W)(\d+)")


class Layer(nn.Module):
    def __init__(self, number):
        super().__init__()
        torch.manual_seed(100 + number)
        self.first = nn.Linear(WIDTH, 2 * WIDTH)
        self.second = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.second(torch.tanh(self.first(x)))


def read_rows(path):
    with open(path, encoding="ascii") as file:
        rows = [line.rstrip("\r\n").split(",") for line in file]
    stages, stages_of_row, microbatches = 0, [], 0
    for row in rows:
        mine = set()
        for cell in row:
            for part in cell.split(";"):
                match = ACTION.match(part.strip())
                if match:
                    mine.add(int(match.group(1)))
                    microbatches = max(microbatches, int(match.group(3)) + 1)
        stages_of_row.append(sorted(mine))
        stages = max([stages] + [s + 1 for s in mine])
    return stages, stages_of_row, microbatches


def loss_of(output, target):
    return ((output - target) ** 2).mean()


def data(microbatches):
    torch.manual_seed(7)
    rows = SAMPLES * microbatches
    return torch.randn(rows, WIDTH), torch.randn(rows, WIDTH)


def expected_gradients(stages, microbatches):
    layers = [Layer(s) for s in range(stages)]
    x, y = data(microbatches)
    loss_of(nn.Sequential(*layers)(x), y).backward()
    return [[p.grad for p in layer.parameters()] for layer in layers]


def step(path, rank):
    stages, stages_of_row, microbatches = read_rows(path)
    device = torch.device("cpu")
    example = torch.randn(SAMPLES, WIDTH)
    modules = {s: Layer(s) for s in stages_of_row[rank]}
    parts = [
        PipelineStage(module, s, stages, device, input_args=(example,), output_args=(example,))
        for s, module in modules.items()
    ]
    for part in parts:
        # torch opens connections to all neighbours, also where a neighbouring stage is on the same rank; gloo cannot
        # send to itself, and needs no opening.
        part._get_init_p2p_neighbors_ops = list
    schedule = _PipelineScheduleRuntime(parts, n_microbatches=microbatches, loss_fn=loss_of)
    if path.endswith(".comms.csv"):
        schedule._load_csv(path, format="compute_comms")
    else:
        schedule._load_csv(path)
    x, y = data(microbatches)
    arguments = (x,) if 0 in modules else ()
    if stages - 1 in modules:
        schedule.step(*arguments, target=y, losses=[])
    else:
        schedule.step(*arguments)
    worst = 0.0
    expected = expected_gradients(stages, microbatches)
    for s, module in modules.items():
        for parameter, gradient in zip(module.parameters(), expected[s]):
            if parameter.grad is None:
                raise RuntimeError(f"stage {s} has no gradient")
            worst = max(worst, ((parameter.grad - gradient).norm() / gradient.norm()).item())
    return worst


def worker(rank, ranks, port, paths, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
    for path in paths:
        try:
            outcome = step(path, rank)
        except Exception as error:  # reported a file; the group may be broken after it
            traceback.print_exc()
            results.put((path, rank, f"{type(error).__name__}: {str(error)[:120]}"))
            break
        results.put((path, rank, outcome))
        dist.barrier()
    dist.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    by_ranks = {}
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.csv"))):
        by_ranks.setdefault(len(read_rows(path)[1]), []).append(path)
    if not by_ranks:
        sys.exit(f"{sys.argv[1]}: no .csv files")
    failed = 0
    print(f"torch {torch.__version__}")
    context = mp.get_context("spawn")
    for ranks, paths in by_ranks.items():
        while paths:
            results = context.SimpleQueue()
            group = mp.spawn(worker, (ranks, free_port(), paths, results), nprocs=ranks, join=False)
            outcomes = {}
            while not group.join(timeout=1) or not results.empty():
                while not results.empty():
                    path, rank, outcome = results.get()
                    outcomes.setdefault(path, {})[rank] = outcome
                if all(not p.is_alive() for p in group.processes) and results.empty():
                    break
            done = [p for p in paths if p in outcomes]
            if not done:
                sys.exit("no process reported anything")
            for path in done:
                texts = [o for o in outcomes[path].values() if isinstance(o, str)]
                missing = ranks - len(outcomes[path])
                worst = max([o for o in outcomes[path].values() if not isinstance(o, str)] + [0.0])
                good = not texts and not missing and worst <= 1e-5
                failed += not good
                detail = texts[0] if texts else f"{missing} ranks silent" if missing else f"gradients differ by {worst:.1e}"
                print(f"{'ok  ' if good else 'FAIL'} {os.path.basename(path):44} {detail}", flush=True)
            paths = [p for p in paths if p not in outcomes]  # after a failure, the rest in fresh processes
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
