"""Speed and memory of cross-entropy losses, ours and others'. Writes its part of README.md and losses.png.

One run is forward and backward on the same logits. All losses of a row take turns in shuffled order; the table has
the median, as a ratio to torch's own label smoothing, and the spread (interquartile range over median).
On a CPU there are two tables: of a quiet machine, and of one whose cores are all kept busy by other processes."""
import multiprocessing, re, warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
warnings.filterwarnings('ignore')
import numpy as np, pandas as pd, torch, torch.nn.functional as F
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
from fastai_labelsmooth.all import *
from report import budget, busy, cuda_peak, device, setup, spread, timed, write_part

eps = 0.1

def to_rows(loss, logits, index, axis):
    "For losses that know only (rows, classes)"
    return loss(logits.movedim(axis, -1).reshape(-1, logits.shape[axis]), index.reshape(-1))

def class_axis_1(logits, axis): return logits if axis == 1 or logits.ndim == 2 else logits.movedim(axis, 1)

def peers():
    "Name -> f(logits, index, axis), each loss as its users call it; peers that are not installed are named"
    ours,flat,ls = ({a: c(axis=a) for a in (1, -1)} for c in (SoftCrossEntropyLossFlat, CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat))
    def dense(y, n, a=-1): return smooth_labels(y, n, eps, axis=a).dense()
    def fastai_axis(z, a): return a if z.ndim > 2 else -1
    res = {
        'ours': lambda z,y,a: ours[a](z, smooth_labels(y, z.shape[a], eps, axis=a)),
        'ours, hard targets': lambda z,y,a: ours[a](z, y),
        'ours, dense target': lambda z,y,a: ours[a](z, dense(y, z.shape[a], a)),
        'torch label_smoothing': lambda z,y,a: F.cross_entropy(class_axis_1(z, a), y, label_smoothing=eps),
        'torch hard': lambda z,y,a: F.cross_entropy(class_axis_1(z, a), y),
        'torch dense target': lambda z,y,a: F.cross_entropy(class_axis_1(z, a), dense(y, z.shape[a], 1)),
        'fastai CrossEntropyLossFlat': lambda z,y,a: flat[fastai_axis(z, a)](z, y),
        'fastai LabelSmoothing': lambda z,y,a: ls[fastai_axis(z, a)](z, y),
    }
    missing = []
    if device.type == 'cuda':
        try:
            from liger_kernel.transformers.functional import liger_cross_entropy
            res['Liger'] = partial(to_rows, lambda z, y: liger_cross_entropy(z, y, label_smoothing=eps))
        except ImportError: missing.append('liger-kernel')
    try:
        from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
        smooth,soft = LabelSmoothingCrossEntropy(eps),SoftTargetCrossEntropy()
        res['timm LabelSmoothing'] = partial(to_rows, smooth)
        res['timm SoftTarget'] = lambda z,y,a: to_rows(lambda z,y: soft(z, dense(y, z.shape[1])), z, y, a)
    except ImportError: missing.append('timm')
    try:
        from segmentation_models_pytorch.losses import SoftCrossEntropyLoss
        smp = {a: SoftCrossEntropyLoss(smooth_factor=eps, dim=a) for a in (1, -1)}
        res['smp SoftCrossEntropyLoss'] = lambda z,y,a: smp[a](z, y)
    except ImportError: missing.append('segmentation-models-pytorch')
    try:
        from transformers.trainer_pt_utils import LabelSmoother
        smoother = LabelSmoother(eps)
        res['transformers LabelSmoother'] = lambda z,y,a: to_rows(lambda z,y: smoother({'logits': z}, y), z, y, a)
    except ImportError: missing.append('transformers')
    return res,missing

def compiled_peer():
    "Name -> f of torch's own loss, compiled; nothing where there is no compiler"
    try:
        loss = torch.compile(lambda z, y: F.cross_entropy(z, y, label_smoothing=eps), dynamic=False)
        loss(torch.randn(2, 3, device=device, requires_grad=True), torch.tensor([0, 1], device=device)).backward()
    except Exception: return {}
    return {'torch label_smoothing, compiled': lambda z,y,a: loss(class_axis_1(z, a), y)}

floors = {'softmax only': lambda z,y,a: z.detach().softmax(a), 'copy only': lambda z,y,a: z.detach().clone()}

def data(shape, axis, seed=0):
    torch.manual_seed(seed)
    z = torch.randn(shape, device=device, requires_grad=True)
    rows = list(shape)
    n = rows.pop(axis)
    return z,torch.randint(0, n, rows, device=device)

def step(f, z, y, axis):
    z.grad = None
    out = f(z, y, axis)
    if out.requires_grad: out.backward()

def times(fs, shape, axis, seconds=8.):
    "Seconds of each of `fs`, in shuffled order"
    z,y = data(shape, axis)
    runs = {k: partial(step, f, z, y, axis) for k,f in fs.items()}
    if 'Liger' in fs: runs['Liger'] = partial(step, fs['Liger'], *data(shape, axis), axis) # it writes its gradient over the logits
    for f in runs.values(): f()
    return timed(runs, seconds)

shapes = [((64, 10), 1), ((256, 1000), 1), ((1024, 32000), 1), ((4096, 32000), 1), ((16, 64, 8000), -1), ((8, 21, 256, 256), 1)]

def speed():
    fs,missing = peers()
    compiled = compiled_peer()
    if not compiled: missing.append('torch.compile (it needs a C++ compiler)')
    fs = {**fs, **compiled}
    rows,spreads,base = {},{},{}
    for shape,axis in shapes:
        t = times({**fs, **floors}, shape, axis, seconds=budget if np.prod(shape) < 5e7 else 5*budget)
        name = f"{shape}{'' if axis == 1 else f', axis {axis}'}"
        mid = t.median()
        ref = mid['torch label_smoothing']
        rows[name] = (mid/ref).map('{:.2f}'.format)
        spreads[name] = f'{spread(t).max():.0%}'
        base[name] = f'{ref*1e3:.2f} ms'
        print(name, dict(rows[name]), flush=True)
    df = pd.DataFrame(rows)
    df.loc['*torch label_smoothing takes*'] = base
    df.loc['*largest spread*'] = spreads
    return df,missing

def mixing():
    "MixUp's loss: against the labels of both images, lerped"
    rows = {}
    for shape,axis in (((64, 10), 1), ((256, 1000), 1), ((8, 21, 256, 256), 1)):
        z,y = data(shape, axis)
        y1,lam = y.flip(0),torch.rand(len(y), device=device)
        flat = CrossEntropyLossFlat(axis=axis if len(shape) > 2 else -1, reduction='none')
        ours = SoftCrossEntropyLossFlat(axis=axis, reduction='none')
        def soft(y): return smooth_labels(y, shape[axis], eps, axis=axis)
        def mixed(loss, target, z): # as `MixHandler.lf`; over pixels fastai's own does not fit `lam` to them
            a,b = (loss(z, target(o)).view(y.shape) for o in (y1, y))
            return torch.lerp(a, b, lam.view(-1, *[1]*(y.ndim-1))).mean()
        fs = {"fastai's two, hard": partial(mixed, flat, lambda o: o), 'ours, smoothed': partial(mixed, ours, soft)}
        t = timed({k: partial(step, lambda z,y,a,f=f: f(z), z, y, axis) for k,f in fs.items()}, budget).median()
        rows[str(shape)] = {**{f'{k} (ms)': t[k]*1e3 for k in fs}, 'ratio': t['ours, smoothed']/t["fastai's two, hard"]}
        print('MixUp', shape, rows[str(shape)], flush=True)
    return pd.DataFrame(rows).T

def resident(what):
    "Bytes of this process in memory: now (VmRSS) or at most since the last reset (VmHWM); Linux"
    return int(re.search(rf'{what}:\s*(\d+)', Path('/proc/self/status').read_text()).group(1))*1024

def peak(name, shape, axis, grad=True):
    "Extra peak memory of one run in this process, over the bytes of the logits"
    f = peers()[0][name]
    def run(z, y):
        if grad: return step(f, z, y, axis)
        with torch.no_grad(): f(z.detach(), y, axis) # as logits are in validation
    run(*data((4,)+shape[1:] if len(shape) == 2 else (1,)+shape[1:], axis)) # what is allocated once only
    z,y = data(shape, axis)
    if device.type == 'cuda': extra = cuda_peak(partial(run, z, y))
    else:
        Path('/proc/self/clear_refs').write_text('5') # resets VmHWM
        before = resident('VmRSS')
        run(z, y)
        extra = resident('VmHWM')-before
    return extra/(z.numel()*z.element_size())

processes = multiprocessing.get_context('forkserver')
processes.set_forkserver_preload(['__main__']) # imports once, and computes nothing that a process would inherit

def fresh_peak(name, shape, axis=1, grad=True):
    "`peak` in a process of its own; on a GPU torch counts by itself, and in a forked process it would fail"
    if device.type == 'cuda': return peak(name, shape, axis, grad)
    with processes.Pool(1) as pool: return pool.apply(peak, (name, shape, axis, grad))

memory_shapes = [((4096, 16000), 1), ((8, 21, 512, 640), 1)]
def memory():
    res = {}
    for shape,axis in memory_shapes:
        for grad in (True, False):
            col = f"{shape}{'' if grad else ', no gradient'}"
            res[col] = {name: fresh_peak(name, shape, axis, grad) for name in peers()[0]}
            print(col, {k: round(v, 2) for k,v in res[col].items()}, flush=True)
    return pd.DataFrame(res)

colors = {'ours': '#D55E00', 'torch label_smoothing': '#0072B2', 'torch hard': '#56B4E9', 'fastai CrossEntropyLossFlat': '#CC79A7', 'fastai LabelSmoothing': '#009E73', 'softmax only': '#999999'}

def growth():
    "How time (ms) and memory (over the bytes of the logits) grow with the number of classes and of rows"
    fs = {k: v for k,v in {**peers()[0], **floors}.items() if k in colors}
    def ms(shapes): return pd.DataFrame({k: times(fs, shape, 1, budget/4).median() for k,shape in shapes.items()}).T*1e3
    def memory(shapes): return pd.DataFrame({k: {name: fresh_peak(name, shape) for name in fs if name not in floors} for k,shape in shapes.items()}).T
    return {('number of classes (256 rows)', 'forward + backward (ms)'): ms({n: (256, n) for n in (10, 30, 100, 300, 1000, 3000, 10000, 50000)}),
            ('number of rows (1,000 classes)', 'forward + backward (ms)'): ms({r: (r, 1000) for r in (8, 32, 128, 512, 2048, 8192, 32768)}),
            ('number of classes (16 million logits)', 'extra memory / logits'): memory({n: (2**24//n, n) for n in (10, 100, 1000, 10000, 50000)}),
            ('number of rows (1,000 classes)', 'extra memory / logits'): memory({r: (r, 1000) for r in (2048, 8192, 32768, 131072)})}

def plot(growths, fname):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig,axs = plt.subplots(2, 2, figsize=(10, 6.5), layout='constrained', height_ratios=(1.4, 1))
    for ax,((x,y),df) in zip(axs.flat, growths.items()):
        for k in df: ax.plot(df.index, df[k], color=colors[k], marker='.', lw=2.5 if k == 'ours' else 1.2, ls=':' if k in floors else '-', label=k)
        ax.set(xlabel=x, ylabel=y, xscale='log')
        if 'ms' in y: ax.set_yscale('log')
        else: ax.set_ylim(0)
    axs[0,0].legend(fontsize=8)
    fig.savefig(fname, dpi=90)

def main():
    torch.set_num_threads(min(2, torch.get_num_threads()))
    loads = {'on a quiet machine': nullcontext}
    if device.type == 'cpu': loads['with as many other processes as cores'] = busy
    tables,missing = {},[]
    for name,load in loads.items():
        with load(): tables[name],missing = speed()
    mixed,mem = mixing(),memory()
    suffix = '' if device.type == 'cpu' else f'-{device.type}'
    plot(growth(), Path(__file__).parent/f'losses{suffix}.png')
    left_out = f"\nNot installed, so left out: {', '.join(missing)}.\n" if missing else ''
    speeds = '\n\n'.join(f'Time of forward and backward {name}, as a ratio to `F.cross_entropy(label_smoothing=0.1)`; '
                         f'"ours" includes making the soft target:\n\n{t.to_markdown()}' for name,t in tables.items())
    write_part(f'losses{suffix}', f"""{setup('timm', 'segmentation-models-pytorch', 'transformers')}
{left_out}
{speeds}

The loss with MixUp, forward and backward, on a quiet machine. fastai's mixer asks for it twice; ours is asked with both soft targets.

{mixed.to_markdown(floatfmt='.2f')}

Extra peak memory of one forward and backward, over the bytes of the logits{'' if suffix else ' (a fresh process each)'}:

{mem.to_markdown(floatfmt='.2f')}

![Time and memory against classes and rows](losses{suffix}.png)""")

if __name__ == '__main__': main()
