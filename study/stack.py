"""Many small networks in one Learner: logits are (items, networks, classes), and each network has its own weights,
items, labels and order. Adam treats each weight by itself and the loss is a mean for each network, so each trains as if
alone"""
import time
from typing import NamedTuple
import numpy as np
import torch, torch.nn.functional as F
from torch import nn
from fastai.basics import Learner, DataLoaders, noop
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.losses import BCEWithLogitsLossFlat
from fastai_labelsmooth.losses import SoftCrossEntropyLossFlat

class StackLoss(SoftCrossEntropyLossFlat):
    "The mean over a network's items, summed over the networks: each gets the gradient that it would get alone"
    def __call__(self, inp, targ): return super().__call__(inp, targ)*inp.shape[1]

class BinaryStackLoss(BCEWithLogitsLossFlat):
    "The same for labels that are scored one by one"
    soft_targets = True
    def __call__(self, inp, targ, **kwargs): return super().__call__(inp, targ, **kwargs)*inp.shape[1]

def uniform(seeds, fan_in, *shape):
    "What `nn.Linear` and `nn.Conv2d` start with, each network from its own seed"
    starts = [np.random.default_rng([seed, fan_in, *shape]).integers(2**62) for seed in seeds]
    gens = [torch.Generator().manual_seed(int(o)) for o in starts]
    bound = fan_in**-.5
    return nn.Parameter(torch.stack([torch.empty(shape).uniform_(-bound, bound, generator=g) for g in gens]))

class Linear(nn.Module):
    "A linear layer of each network: (networks, items, in) to (networks, items, out)"
    def __init__(self, seeds, n_in, n_out):
        super().__init__()
        self.weight,self.bias = uniform(seeds, n_in, n_in, n_out),uniform(seeds, n_in, 1, n_out)

    def forward(self, x): return torch.baddbmm(self.bias, x, self.weight)

class Conv(nn.Module):
    "A convolution of each network, `k` by `k`, every second pixel: (networks, items, channels, height, width)"
    def __init__(self, seeds, n_in, n_out, k):
        super().__init__()
        self.k,self.linear = k,Linear(seeds, k*k*n_in, n_out)

    def forward(self, x):
        x = F.pad(x, [self.k//2]*4).unfold(3, self.k, 2).unfold(4, self.k, 2) # (r, b, c, h, w, k, k)
        r,b,c,h,w = x.shape[:5]
        x = self.linear(x.permute(0, 1, 3, 4, 2, 5, 6).reshape(r, b*h*w, -1))
        return x.view(r, b, h, w, -1).permute(0, 1, 4, 2, 3)

class Stack(nn.Module):
    "One network for each of `seeds`, with one hidden layer; two convolutions before it for images"
    def __init__(self, seeds, shape, n, hidden):
        super().__init__()
        body,size = [],shape[0]
        if len(shape) == 2: # 14 by 14
            body = [Conv(seeds, 1, 8, 5), nn.ReLU(), Conv(seeds, 8, 16, 3), nn.ReLU(), nn.Flatten(2)]
            size = 16*4*4
        self.layers = nn.Sequential(*body, Linear(seeds, size, hidden), nn.ReLU(), Linear(seeds, hidden, n))

    def forward(self, x): # (items, networks, ...)
        if x.ndim == 4: x = x.unsqueeze(2)
        return self.layers(x.transpose(0, 1)).transpose(0, 1)

class Batches:
    "Each network's own items in its own order, pass after pass, cut into batches of `bs`"
    def __init__(self, x, targets, items, seeds, bs, steps):
        self.x,self.targets,self.bs,self.steps = x,targets,bs,steps
        self.order = np.stack([self.passes(o, seed) for o,seed in zip(items, seeds)], 1) # (steps*bs, networks)

    def passes(self, items, seed):
        rng,size = np.random.default_rng([seed, 2]),self.steps*self.bs
        return np.concatenate([rng.permutation(items) for _ in range(-(-size//len(items)))])[:size].astype(np.int32)

    def __len__(self): return self.steps
    def __iter__(self):
        network = torch.arange(self.order.shape[1])
        for step in range(self.steps):
            idx = torch.from_numpy(self.order[step*self.bs:(step+1)*self.bs]).long()
            yield self.x[idx],self.targets[network, idx]

class Fit(NamedTuple):
    "What the study fixes once for each data set"
    lr:float # Of one-cycle
    bs:int
    epochs:int # Passes over the training items
    hidden:int=100

def train(
    x, # (items, ...), float32
    n, # Classes
    seeds, # One for each network: its initial weights and its order
    items, # One array for each network: positions of what it trains on
    targets, # (networks, all items): classes; or distributions, with a last axis
    fit, # `Fit`
    cbs=None, # A `LabelSmooth`
    epoch_items=None, # Items in a pass, by which steps are counted; those of the first network if None
    sigmoid=False
) -> tuple: # (model, seconds)
    "Train a stack, all networks for the same number of steps"
    start = time.process_time() # of this process: others may be busy
    steps = fit.epochs*max(1, round((epoch_items or len(items[0]))/fit.bs))
    x,targets = torch.as_tensor(x),torch.as_tensor(targets)
    dl = Batches(x, targets, items, seeds, fit.bs, steps)
    loss_func = BinaryStackLoss() if sigmoid else StackLoss()
    model = Stack(seeds, x.shape[1:], n, fit.hidden)
    learn = Learner(DataLoaders(dl, [], device='cpu'), model, loss_func, lr=fit.lr, cbs=cbs)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    learn.fit_one_cycle(1, fit.lr) # one "epoch" of all steps: nothing is validated between
    return learn.model.eval(),time.process_time()-start

@torch.no_grad()
def logits(model, x, items):
    "Logits (items, networks, classes) of each network for its own items (networks, items)"
    x,items = torch.as_tensor(x),torch.as_tensor(items).T
    return torch.cat([model(x[o]) for o in items.split(512)]).double().numpy()
