"What the benchmarks share: the device, the clock, and where the tables go"
import gc, os, platform, random, re, subprocess, sys, time
from contextlib import contextmanager
from importlib.metadata import version, PackageNotFoundError
from pathlib import Path
import pandas as pd, torch

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
budget = 8 if device.type == 'cpu' else 4 # seconds of a comparison; a GPU does more turns in them

def clock(f):
    "Seconds until `f()` is done, on a GPU too. (A CUDA event that a forked data-loader worker inherits would end it)"
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    wait()
    start = time.perf_counter()
    f()
    wait()
    return time.perf_counter()-start

def timed(runs, seconds, least=7, most=3000):
    "Run all of `runs` in turns, in shuffled order, for about `seconds`: a row of seconds a turn, a column each"
    res,names,start = {k: [] for k in runs},list(runs),time.perf_counter()
    while len(res[names[0]]) < least or (time.perf_counter()-start < seconds and len(res[names[0]]) < most):
        for k in random.sample(names, len(names)): res[k].append(clock(runs[k]))
    return pd.DataFrame(res)

@contextmanager
def busy(n=None):
    "As data-loader workers do: `n` processes that keep a core busy, as many as there are cores if None"
    spinning = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(os.cpu_count() if n is None else n)]
    try: yield
    finally:
        for p in spinning: p.kill()

def cuda_peak(f):
    "Bytes that `f()` takes on the GPU at most, beyond what was taken before"
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    f()
    return torch.cuda.max_memory_allocated()-before

def spread(times): return (times.quantile(.75)-times.quantile(.25))/times.median() # interquartile range over median

def setup(*packages):
    "Where and with what the numbers were taken"
    def v(p):
        try: return f'{p} {version(p)}'
        except PackageNotFoundError: return None
    cpu = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text()) if Path('/proc/cpuinfo').exists() else None
    where = f'{cpu.group(1) if cpu else platform.processor()}, {torch.get_num_threads()} threads'
    if device.type == 'cuda':
        x = torch.empty(2**28, device=device)
        copy = timed({'copy': lambda: x.clone()}, 2)['copy'].median()
        where = f'{torch.cuda.get_device_name()}, copies {2*x.numel()*4/copy/1e9:.0f} GB/s; {where}'
    return f"{where}; Python {platform.python_version()}, " + ', '.join(filter(None, map(v, ('torch', 'fastai', *packages)))) + '.'

def write_part(name, text):
    "Write `text` between its markers in README.md"
    fname = Path(__file__).parent/'README.md'
    old,part = fname.read_text(),f'<!-- {name} -->\n{text}\n<!-- /{name} -->'
    pat = re.compile(f'<!-- {name} -->.*<!-- /{name} -->', re.S)
    fname.write_text(pat.sub(lambda m: part, old) if pat.search(old) else f'{old.rstrip()}\n\n{part}\n')
