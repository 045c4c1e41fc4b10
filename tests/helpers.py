"What several test files share: small quiet Learners, their data, and processes"
import os, subprocess, sys
from functools import lru_cache
import numpy as np, torch
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from sklearn.datasets import load_digits

# Learners

def quiet(learn):
    "`learn` without its progress bar and printed table"
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def weights(learn):
    "A copy of all parameters as one vector"
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

def items_dls(train, valid=None, bs=16, shuffle=False):
    "DataLoaders on the CPU of two lists of items, or of one list twice; `shuffle` concerns the training items alone"
    valid = train if valid is None else valid
    return DataLoaders.from_dsets(train, valid, bs=bs, shuffle=(shuffle, False), num_workers=0, device='cpu')

def items_learner(items, model, loss_func, cbs=None, bs=16, **kwargs):
    "A quiet Learner that trains and validates on `items`, in order"
    return quiet(Learner(items_dls(items, bs=bs), model, loss_func, cbs=cbs, **kwargs))

def digits_learner(cbs=None, loss_func=None, dls=None, seed=0, n_out=10, **kwargs):
    "A small quiet classifier of digits, the same for the same seed"
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

# Data

@lru_cache(maxsize=None)
def _digits():
    d = load_digits()
    return torch.tensor(d.data, dtype=torch.float32)/16,torch.tensor(d.target)

def digits(n=512):
    "The first `n` handwritten digits of scikit-learn, as (64 values in [0, 1], class), copied for each call"
    return [(x.clone(), y.clone()) for x,y in zip(*(o[:n] for o in _digits()))]

def digits_dls(bs=64, n_train=512, n_valid=200):
    "DataLoaders of `digits`"
    items = digits(n_train+n_valid)
    return DataLoaders(DataLoader(items[:n_train], bs=bs, shuffle=True, num_workers=0),
                       DataLoader(items[n_train:], bs=bs, num_workers=0))

def noisy_digits(share=.2, n_train=512, n_valid=400, seed=0):
    "DataLoaders of digits, a `share` of the labels replaced by any other class, and which training labels are wrong"
    rng = np.random.default_rng(seed)
    wrong = rng.random(n_train+n_valid) < share
    items = [(x, (y+int(rng.integers(1, 10)))%10 if w else y) for (x,y),w in zip(digits(n_train+n_valid), wrong)]
    dls = DataLoaders(DataLoader(items[:n_train], bs=64, shuffle=True), DataLoader(items[n_train:], bs=64))
    return dls,wrong[:n_train]

def softmax_data(m=500, n=5, scale=3.):
    "Logits, and classes drawn by their probabilities at temperature 2"
    z = torch.randn(m, n)*scale
    return z,(z/2).softmax(1).multinomial(1)[:, 0]

def multi_data(m=300, n=4):
    "Logits, and labels that are each on or off, drawn at temperature 2"
    z = torch.randn(m, n)*2
    return z,torch.bernoulli((z/2).sigmoid())

def seg_data(b=6, n=4, void=255):
    "Logits of `b` masks, and their classes, a fifth of them void"
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
    """Save `values` for `torchrun`, as the last thing that its script does

    The process ends at once: torch sometimes aborts when it stops its threads ("terminate called without an active
    exception")."""
    torch.save(values, Path(out)/f'rank{torch.distributed.get_rank()}.pt')
    torch.distributed.barrier()
    os._exit(0)
