"""`python study/run.py`: the study of STUDY.md, into `results.csv`. `--quick`: a slice of it, into `quick.csv`.
`--arms "forward one,issues even"`: these only, in the cells that lack them.
`--only data=wine,noise=none,regime=long,arm=hard,seed=3`: train these rows again, print them next to the table's"""
import sys
from pathlib import Path
here = Path(__file__).parent
if Path(sys.path[0]).resolve() == here.resolve():
    sys.path[0] = str(here.parent.resolve()) # this folder's `statistics` would be taken for Python's own
import argparse, gc, multiprocessing, os, time, traceback, warnings
from importlib.metadata import version
from importlib.util import find_spec
warnings.filterwarnings('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
import pandas as pd
from study.arms import Cell, arms_of
from study.data import load, world
from study.measures import endpoints
from study.plan import plan, quick_plan, fits
keys = ['data', 'noise', 'regime', 'arm', 'seed']
columns = [*keys, 'eps', 'accuracy', 'nll', 'brier', 'ece', 'temp', 'nll_t', 'aurc', 'aurc_t', 'valid_nll',
           'valid_accuracy', 'nll_votes', 'nll_votes_t', 'entropy_corr', 'weight_gap', 'precision', 'recall', 'removed',
           'refused', 'failed', 'seconds', 'versions']

has_cleanlab = find_spec('cleanlab') is not None

def versions():
    "The packages that the numbers depend on"
    return ' '.join(f'{o}={version(o)}' for o in ('torch', 'fastai', *(['cleanlab'] if has_cleanlab else [])))

def rows_of(cell, regime, name, arm):
    "An arm's rows, one for each seed; a failure is a row too"
    w = cell.world
    base = dict(data=w.data.name, noise=w.noise, regime=regime, arm=name, seed=w.seeds, versions=versions())
    try: res = arm(cell)
    except Exception as e:
        traceback.print_exc()
        return pd.DataFrame({**base, 'failed': f'{type(e).__name__}: {e}'})
    shares = None if w.data.votes is None else w.data.votes/w.data.votes.sum(1, keepdims=True)
    votes = None if shares is None else shares[w.test.T]
    scores = endpoints(res.valid, cell.labels(w.valid), res.test, cell.labels(w.test, w.data.y), res.T, votes)
    return pd.DataFrame({**base, 'eps': res.eps, **scores, **res.extra, 'seconds': res.seconds/cell.R})

def run_cell(data, noise, regime, seeds, names=None):
    "All arms of a cell, or the named ones: a data set, a noise, a regime"
    import torch
    torch.set_num_threads(1)
    cell = Cell(world(data, noise, seeds), fits[data, regime])
    arms,tables = arms_of(load(data)),[]
    for name in names or [o for o in arms if has_cleanlab or o != 'cleanlab prune']:
        tables.append(rows_of(cell, regime, name, arms[name]))
        gc.collect() # a Learner is a circle of references, and holds the order of all its batches
    table = pd.concat(tables)
    return table.reindex(columns=columns)

def run_one(job): return run_cell(*job)

def save(table, path):
    "The whole table at once: an interruption leaves the old one or the new one"
    table.sort_values(keys, kind='stable').to_csv(path.with_suffix('.part'), index=False, float_format='%.5g')
    os.replace(path.with_suffix('.part'), path)

def missing(jobs, path, names=None):
    "The cells that the table lacks; or, with `names`, the cells that lack some of these arms, and which"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)
    n = 3 if names is None else 4
    done = set(table[keys[:n]].drop_duplicates().itertuples(index=False, name=None))
    if names is None: return [o for o in jobs if o[:3] not in done],table
    left = [(*o, [arm for arm in names if (*o[:3], arm) not in done]) for o in jobs]
    return [o for o in left if o[4]],table

def run(jobs, path, workers, names=None):
    "The cells, or the named arms of them, that are still missing, in some processes"
    from fastprogress.fastprogress import progress_bar
    jobs,table = missing(jobs, path, names)
    if not has_cleanlab: print("cleanlab is not installed (pip install -r study/requirements.txt): its arm is left out")
    start = time.perf_counter()
    # A process for each cell gives all of its memory back
    with multiprocessing.get_context('spawn').Pool(workers, maxtasksperchild=1) as pool:
        for done in progress_bar(pool.imap_unordered(run_one, jobs), total=len(jobs)):
            table = done if table.empty else pd.concat([table, done])
            save(table, path)
    if jobs: print(f'{len(jobs)} cells in {(time.perf_counter()-start)/60:.1f} minutes')

def rerun(only, path):
    "Train what `only` names again, together with the other seeds of its cell, and print both"
    asked = dict(o.split('=', 1) for o in only.split(','))
    if not set(asked) <= set(keys): raise SystemExit(f"--only {only}: expected some of {', '.join(keys)}")
    jobs = [o for o in plan if all(asked.get(k, v) == v for k,v in zip(keys[:3], o))]
    if not jobs: raise SystemExit(f"--only {only}: the study has no such cell")
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)
    names = [asked['arm']] if 'arm' in asked else None
    for job in jobs:
        row = {**dict(zip(keys, job[:3])), **asked}
        for name,part in (('again', run_cell(*job, names)), ('table', table)):
            found = part[np.logical_and.reduce([part[k].astype(str) == v for k,v in row.items()])]
            print(name, found.drop(columns='versions').dropna(axis=1, how='all').to_string(index=False), sep='\n')

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--only')
    parser.add_argument('--arms', type=lambda o: o.split(','))
    parser.add_argument('--workers', type=int, default=min(2, os.cpu_count()))
    args = parser.parse_args()
    path = here/('quick.csv' if args.quick else 'results.csv')
    if args.only: return rerun(args.only, here/'results.csv')
    jobs = quick_plan if args.quick else plan
    if args.arms: jobs = [o for o in jobs if set(args.arms) <= set(arms_of(load(o[0])))]
    run(jobs, path, args.workers, args.arms)
    from study.claims import report
    print(report(pd.read_csv(path)))

if __name__ == '__main__': main()
