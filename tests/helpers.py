"What several test files use: small learners, data, processes"
import os, subprocess, sys
import torch
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from sklearn.datasets import load_digits

def quiet(learn):
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

def digits_dls(bs=64, n_train=512, n_valid=200):
    "Real handwritten digits, as vectors of 64 values"
    d = load_digits()
    items = [(torch.tensor(x, dtype=torch.float32)/16, torch.tensor(y)) for x,y in zip(d.data, d.target)]
    return DataLoaders(DataLoader(items[:n_train], bs=bs, shuffle=True, num_workers=0),
                       DataLoader(items[n_train:n_train+n_valid], bs=bs, num_workers=0))

def digits_learner(cbs=None, loss_func=None, dls=None, seed=0, n_out=10, **kwargs):
    "A small quiet classifier of digits, the same one for the same seed"
    set_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n_out))
    return quiet(Learner(dls or digits_dls(), model, CrossEntropyLossFlat() if loss_func is None else loss_func,
                         metrics=accuracy, cbs=cbs, **kwargs))

class Logits(nn.Module):
    "A model that returns its input"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
    def forward(self, x): return x+0*self.w

def logits_learner(z, y, loss, bs=64, cbs=None, **kwargs):
    "A learner whose predictions are the logits `z`"
    dls = DataLoaders(*[DataLoader(list(zip(z, y)), bs=bs, num_workers=0, **kwargs) for _ in range(2)])
    return quiet(Learner(dls, Logits(), loss, cbs=cbs))

def softmax_data(m=500, n=5, scale=3.):
    z = torch.randn(m, n)*scale
    return z,(z/2).softmax(1).multinomial(1)[:, 0]

def multi_data(m=300, n=4):
    z = torch.randn(m, n)*2
    return z,torch.bernoulli((z/2).sigmoid())

def seg_data(b=6, n=4, void=255):
    z = torch.randn(b, n, 7, 9)*2
    y = torch.randint(0, n, (b, 7, 9))
    y[torch.rand(y.shape) < .2] = void
    return z,y

# Processes

def run_process(cmd, timeout, **kwargs):
    "What a process printed. One that fails or hangs is an error that shows the end of its output"
    cmd = [str(o) for o in cmd]
    try: res = subprocess.run(cmd, capture_output=True, text=True, timeout=timeout, **kwargs)
    except subprocess.TimeoutExpired as e:
        printed = b''.join(o or b'' for o in (e.stdout, e.stderr)).decode(errors='replace')
        raise AssertionError(f"{' '.join(cmd)} hung for {timeout} s:\n{printed[-3000:]}") from None
    assert res.returncode == 0, f"{' '.join(cmd)} ended with {res.returncode}:\n{(res.stdout+res.stderr)[-3000:]}"
    return res.stdout+res.stderr

def torchrun(script, out, timeout=120):
    "Run a script of this folder in two processes, and load what each saved by `save_rank`"
    env = {**os.environ, 'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    run_process([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
                 Path(__file__).with_name(script), out], timeout, env=env)
    return [torch.load(Path(out)/f'rank{i}.pt', weights_only=False) for i in range(2)]

def save_rank(out, **values):
    """The last thing a script of `torchrun` does. The process ends at once: torch, while it takes its threads down, aborts
    now and then ("terminate called without an active exception")"""
    torch.save(values, Path(out)/f'rank{torch.distributed.get_rank()}.pt')
    torch.distributed.barrier()
    os._exit(0)
