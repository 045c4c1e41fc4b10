"""Speed and memory of the smoothers, compared with the plain smoothed loss. Writes its part of README.md.

One run is the making of the target, the loss forward, and backward to the logits. All take turns in shuffled order; the
table has the median as a ratio to `"exact"`, and the spread (interquartile range over median)."""
import subprocess, sys, warnings
from functools import partial
warnings.filterwarnings('ignore')
import pandas as pd, torch
from fastai_labelsmooth.all import *
from losses import data, device
from pathlib import Path
from report import budget, cuda_peak, setup, spread, timed, write_part

def smoothers(n, spatial):
    "Name -> smoother, for n classes"
    few = n <= 1000 # a matrix of 32,000 classes takes 4 GB
    rows = {} if not few else {'Rows': Rows(ordinal_rows(n)), 'Online': Online()}
    if few:
        rows['Online'].matrix = rows['Rows'].r
        rows['Forward(T)'] = Forward(.9*torch.eye(n) + .1*rows['Rows'].r)
    space = {'Spatial': Spatial()} if spatial else {}
    return {'exact': Uniform(), 'paper': Uniform('paper'), 'Priors': Priors(torch.arange(1, n+1)), 'forward': Forward(), **rows, 'Bootstrap': Bootstrap(),
            'Teacher (of no cost)': Teacher(torch.nn.Identity()), **space, 'MaxSup': MaxSup(), 'Margin': Margin(4.), 'ConfidencePenalty': ConfidencePenalty()}

def step(mode, loss, z, y, axis, teacher):
    z.grad = None
    eps = None if mode.default_eps is None else 0.1
    batch = Batch(Task(z.shape[axis], axis, -100, False), eps, z.detach(), (teacher,))
    loss(mode.observed(z, batch), mode(y, batch)).backward()

def runs(shape, axis):
    "Name -> f() that makes the target, the loss and the gradient"
    z,y = data(shape, axis)
    teacher,loss = torch.randn(shape, device=device),SoftCrossEntropyLossFlat(axis=axis)
    return {k: partial(step, mode, loss, z, y, axis, teacher) for k,mode in smoothers(shape[axis], len(shape) > 3).items()}

shapes = [((64, 10), 1), ((256, 1000), 1), ((1024, 32000), 1), ((16, 64, 1000), -1), ((8, 21, 256, 256), 1)]

def speed(seconds=budget):
    rows,spreads = {},{}
    for shape,axis in shapes:
        fs = runs(shape, axis)
        for f in fs.values(): f()
        t = timed(fs, seconds)
        name = f"{shape}{'' if axis == 1 else f', axis {axis}'}"
        mid = t.median()
        rows[name] = (mid/mid['exact']).map('{:.2f}'.format)
        rows[name]['*exact takes*'] = f"{mid['exact']*1e3:.2f} ms"
        spreads[name] = f'{spread(t).max():.0%}'
        print(name, dict(rows[name]), spreads[name], flush=True)
    df = pd.DataFrame(rows).fillna('')
    df.loc['*largest spread*'] = spreads
    return df

def peak(name, shape, axis):
    "Extra peak memory of one run in this process, over the bytes of the logits"
    from losses import resident
    runs(((1, 21, 64, 64) if len(shape) == 4 else (4, *shape[1:])), axis)[name]() # what is allocated once only
    f = runs(shape, axis)[name]
    size = torch.Size(shape).numel()*4
    if device.type == 'cuda': return cuda_peak(f)/size
    Path('/proc/self/clear_refs').write_text('5') # resets VmHWM
    before = resident('VmRSS')
    f()
    return (resident('VmHWM')-before)/size

def fresh_peak(name, shape):
    if device.type == 'cuda': return peak(name, shape, 1)
    out = subprocess.run([sys.executable, __file__, 'peak', name, repr(shape)], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])

def memory():
    "`peak` of each, on a CPU in processes of their own"
    res = {}
    for shape in ((1024, 32000), (8, 21, 256, 256)):
        res[str(shape)] = {k: fresh_peak(k, shape) for k in smoothers(shape[1], len(shape) > 3)}
        print(shape, res[str(shape)], flush=True)
    return pd.DataFrame(res)

def main():
    torch.set_num_threads(min(2, torch.get_num_threads()))
    speeds,mem = speed(),memory()
    suffix = '' if device.type == 'cpu' else f'-{device.type}'
    write_part(f'smoothers{suffix}', f"""{setup()}

Time of making the target, the loss and its gradient, as a ratio to `"exact"`:

{speeds.to_markdown()}

Extra peak memory of the same, over the bytes of the logits ({'' if suffix else 'a fresh process each; '}the gradient is one of them):

{mem.to_markdown(floatfmt='.2f')}""")

if __name__ == '__main__':
    if sys.argv[1:2] == ['peak']: print(peak(sys.argv[2], eval(sys.argv[3]), 1))
    elif sys.argv[1:2] == ['look']: speed(3), memory() # writes nothing
    else: main()
