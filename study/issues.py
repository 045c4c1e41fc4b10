"""`python study/issues.py`: the evidence on wrong labels, ISSUES.md, into `issues.csv`; goes on where it stopped.
`--quick`: a slice in a minute, into `quick_issues.csv`. `--report`: what the table says. `--group development` or
`held-out`: these data sets only. `--cache DIR`: keep the first predictions there, for other estimators"""
import sys
from pathlib import Path
here = Path(__file__).parent
if Path(sys.path[0]).resolve() == here.resolve():
    sys.path[0] = str(here.parent.resolve()) # this folder's `statistics` would be taken for Python's own
import argparse, os, time, warnings
from importlib.util import find_spec
warnings.filterwarnings('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.model_selection import StratifiedKFold
from fastai_labelsmooth.callback import LabelSmooth
from fastai_labelsmooth.wrong_labels.noise import fit_noise, named_wrong
from study.arms import per_network
from study.data import symmetric
from study.issues_data import (development, held_out, noises, rare_development, rare_held_out, rare_noises, rare_world,
                               world)
from study.measures import label_nll, temperature
from study.run import save, versions
from study.stack import Fit, logits, train

has_cleanlab = find_spec('cleanlab') is not None
n_folds = 5
list_only = ['argmax', 'cleanlab self'] if has_cleanlab else ['argmax']
seeds = 1, 2, 3, 4, 5
keys = ['data', 'noise', 'regime', 'arm', 'seed']
columns = [*keys, 'group', 'n', 'wrong', 'named', 'false', 'f1', 'precision_50', 'ap', 'share', 'lo', 'hi', 'temp',
           'lost', 'accuracy', 'nll', 'nll_t', 'nll_both', 'rare_accuracy', 'trainings', 'seconds', 'versions']
# The fit: about the best likelihood of clean validation labels without noise, on seed 0
short = dict(moons=12, blobs=6, rings=30, minority=12, digits_tail=30, phishing=12, car_origin=40, bananas=25,
             segment=25, iris=25, two_minorities=20, seven=20, forty=10, mnist_tail=12, party=6, affairs=5)

def fit_of(name, regime, n_items):
    epochs = short.get(name, 25) # of a rare set too
    if regime == 'long': epochs = max(50, 2*epochs)
    return Fit(1e-2, 64 if n_items > 600 else 32, epochs, 50)

# Trainings, all of a stage in one stack

def fold_of(seed, labels):
    "The fold of each item"
    res = np.zeros(len(labels), int)
    split = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for k,(_,part) in enumerate(split.split(labels, labels)): res[part] = k
    return res

class Stage:
    "Networks to train together: each has a seed's labels, its own items and its own noise matrix"
    def __init__(self, world, fit):
        self.world,self.fit = world,fit
        self.rows,self.items,self.T,self.labels = [],[],[],[]

    def add(self, r, items, T=None, labels=None):
        "A network for the seed at position `r`, with the seed's labels or others; returns its number"
        self.rows.append(r)
        self.items.append(items)
        self.labels.append(self.world.labels[r] if labels is None else labels)
        self.T.append(np.eye(self.world.data.n) if T is None else T)
        return len(self.rows)-1

    def train(self):
        w,rows = self.world,np.array(self.rows)
        T = np.stack(self.T)
        is_hard = (T == np.eye(w.data.n)).all()
        cbs = None if is_hard else LabelSmooth(mode=per_network(T))
        seeds = np.array(w.seeds)[rows]
        n_items = w.train.shape[1]
        self.model,self.seconds = train(w.data.x, w.data.n, seeds, self.items, np.stack(self.labels), self.fit, cbs,
                                         n_items)

    def logits(self, items):
        "Logits (networks, items, classes) of each network for the items (R, items) of its seed"
        return logits(self.model, self.world.data.x, items[np.array(self.rows)]).transpose(1, 0, 2)

    def folds(self, r, fold, kept):
        "Add a model for each fold, trained on the kept items of the others"
        items = self.world.train[r]
        return [self.add(r, items[(fold != k) & kept]) for k in range(n_folds)]

def out_of_fold(z, folds, fold):
    "Each item by the model of its fold"
    return z[np.array(folds)[fold], np.arange(len(fold))]

# Lists

def judged(p, labels, by_class):
    noise = fit_noise(p, labels, by_class)
    doubt = noise.prob_wrong(p, labels)
    return named_wrong(doubt, p, labels),doubt,noise

def cleanlab_list(p, labels):
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    named = find_label_issues(labels, p, n_jobs=1)
    return named,-get_label_quality_scores(labels, p, method='normalized_margin'),None

def cleanlab_self(p, labels):
    "Another of its rankings: by the probability of the label"
    named,_,_ = cleanlab_list(p, labels)
    return named,-p[np.arange(len(p)), labels],None

def argmax_list(p, labels):
    doubt = p.max(1) - p[np.arange(len(p)), labels]
    return p.argmax(1) != labels,doubt,None

def average_precision(doubt, wrong):
    hits = wrong[np.argsort(-doubt, kind='stable')]
    return (hits.cumsum()/np.arange(1, len(hits)+1))[hits].mean()

def list_scores(named, doubt, noise, labels, y):
    "How good a list is; `lost`: the largest share of a class that is named, of classes with 3 or more right labels"
    wrong,right = labels != y,labels == y
    named_right = named & right
    size,lost = np.bincount(y[right]),np.bincount(y[named_right], minlength=y[right].max()+1)
    res = dict(n=len(y), wrong=wrong.mean(), named=named.mean(), false=named_right.sum()/right.sum(),
               lost=(lost/np.maximum(size, 1))[size >= 3].max())
    if wrong.any():
        res['f1'] = 2*(named & wrong).sum()/(named.sum()+wrong.sum())
        res['precision_50'] = wrong[np.argsort(-doubt, kind='stable')[:50]].mean()
        res['ap'] = average_precision(doubt, wrong)
    if noise is not None:
        res |= dict(share=noise.share, lo=noise.interval[0], hi=noise.interval[1], temp=noise.temp)
    return res

# What is trained in the end

def model_scores(valid, valid_labels, test, y, T, is_fitted):
    "Accuracy and likelihood on clean test labels, also after a temperature from the observed validation labels"
    z,T = test[:, None],None if T is None else T[None]
    temp = temperature(valid[:, None], valid_labels[:, None], T)
    right = test.argmax(1) == y
    rare = np.bincount(y).argmin()
    res = dict(accuracy=right.mean(), nll=label_nll(z, y[:, None])[0], nll_t=label_nll(z/temp[0], y[:, None])[0],
               rare_accuracy=right[y == rare].mean())
    if is_fitted: # the temperature together with the share
        both = fit_noise(softmax(valid, -1), valid_labels).temp
        res['nll_both'] = label_nll(z/both, y[:, None])[0]
    return res

class Run:
    "A data set, a noise and a fit, for all seeds"
    def __init__(self, name, noise, regime, group, cache=None):
        self.base = dict(data=name, noise=noise, regime=regime, group=group, versions=versions())
        self.is_rare = ' rare ' in name
        self.world = (rare_world if self.is_rare else world)(name, noise, seeds)
        self.fit = fit_of(name, regime, self.world.train.shape[1])
        self.R,self.rows,self.cache = range(len(seeds)),[],cache
        w = self.world
        self.labels = [w.labels[r][w.train[r]] for r in self.R]
        self.clean = [w.data.y[w.train[r]] for r in self.R]
        self.fold = [fold_of(s, labels) for s,labels in zip(seeds, self.labels)]
        self.all = [np.ones(len(o), bool) for o in self.labels]

    def first(self):
        "Hard models: one of all items, and one for each fold"
        stage = Stage(self.world, self.fit)
        whole = [stage.add(r, self.world.train[r]) for r in self.R]
        folds = [stage.folds(r, self.fold[r], self.all[r]) for r in self.R]
        stage.train()
        z = stage.logits(self.world.train)
        self.p = [softmax(out_of_fold(z, folds[r], self.fold[r]), -1) for r in self.R]
        self.seconds = stage.seconds/len(stage.rows)
        if self.is_rare: return
        self.valid,self.test = stage.logits(self.world.valid)[whole],stage.logits(self.world.test)[whole]
        self.add_models('hard', 1, self.valid, self.test)
        if self.cache: self.keep()

    def keep(self):
        w = self.world
        name = '-'.join(self.base[k] for k in ('data', 'noise', 'regime'))
        np.savez_compressed(self.cache/f'{name}.npz', p=np.stack(self.p), labels=self.labels, clean=self.clean,
                            valid=self.valid, valid_labels=self.at(w.valid), test=self.test, y=w.data.y[w.test])

    def at(self, items): return np.stack([self.world.labels[r][items[r]] for r in self.R])

    def add(self, arm, r, trainings, **scores):
        self.rows.append({**self.base, 'arm': arm, 'seed': seeds[r], 'trainings': trainings,
                          'seconds': trainings*self.seconds, **scores})

    def add_models(self, arm, trainings, valid, test, T=None, extra=None):
        "Rows of the networks of an arm, with the scores of its lists"
        w = self.world
        for r in self.R:
            of = valid[r],self.at(w.valid)[r],test[r],w.data.y[w.test[r]]
            scores = model_scores(*of, T and T[r], arm in ('hard', 'forward one', 'forward folds'))
            self.add(arm, r, trainings, **scores, **(extra[r] if extra else {}))

    def lists(self):
        "For each arm and seed: which labels are named, and the scores of the list"
        makers = {'even': lambda p, y: judged(p, y, False), 'by class': lambda p, y: judged(p, y, True),
                  'argmax': argmax_list}
        if has_cleanlab: makers |= {'cleanlab': cleanlab_list, 'cleanlab self': cleanlab_self}
        self.named,self.scores,self.noise = {},{},{}
        for arm,make in makers.items():
            made = [make(p, labels) for p,labels in zip(self.p, self.labels)]
            self.named[arm] = [o[0] for o in made]
            self.noise[arm] = [o[2] for o in made]
            self.scores[arm] = [list_scores(*o, labels, y) for o,labels,y in zip(made, self.labels, self.clean)]

    def forward_arms(self):
        "(arm, trainings, noise matrix for each seed, scores) of the forward arms"
        n = self.world.data.n
        valid_labels = self.at(self.world.valid)
        one = [fit_noise(softmax(z, -1), labels) for z,labels in zip(self.valid, valid_labels)]
        def scores(fits): return [dict(share=o.share, lo=o.interval[0], hi=o.interval[1], temp=o.temp) for o in fits]
        arms = {'forward one': (2, one), 'forward folds': (6, self.noise['even']),
                'forward matrix': (6, self.noise['by class'])}
        for k,(trainings,fits) in arms.items():
            T = [o.T if k == 'forward matrix' else symmetric(n, o.share) for o in fits]
            yield k,trainings,T,scores(fits)

    def corrected(self):
        "(arm, labels of each seed): the labels that `even` names are corrected, or as many drawn at random"
        w = self.world
        def with_labels(r, positions, new):
            res = w.labels[r].copy()
            res[w.train[r][positions]] = new
            return res
        for arm in 'even relabelled', 'even by hand', 'random by hand':
            made = []
            for r in self.R:
                named = np.flatnonzero(self.named['even'][r])
                if arm.startswith('random'):
                    named = np.random.default_rng(seeds[r]).choice(len(self.labels[r]), len(named), replace=False)
                others = self.p[r][named].copy()
                others[np.arange(len(named)), self.labels[r][named]] = -1
                made.append(with_labels(r, named, self.clean[r][named] if 'hand' in arm else others.argmax(1)))
            yield arm,made

    def second(self):
        "Models with forward, models of what lists leave, and the second round's folds"
        w,stage = self.world,Stage(self.world, self.fit)
        forward = list(self.forward_arms())
        made = {k: [stage.add(r, w.train[r], T[r]) for r in self.R] for k,_,T,_ in forward}
        dropped = [k for k in self.named if k not in list_only]
        made |= {k: [stage.add(r, w.train[r][~self.named[k][r]]) for r in self.R] for k in dropped}
        corrected = dict(self.corrected())
        made |= {k: [stage.add(r, w.train[r], labels=o[r]) for r in self.R] for k,o in corrected.items()}
        twice = [k for k in ('cleanlab', 'argmax') if k in self.named]
        folds = {k: [stage.folds(r, self.fold[r], ~self.named[k][r]) for r in self.R] for k in twice}
        stage.train()
        valid,test = stage.logits(w.valid),stage.logits(w.test)
        for k,trainings,T,scores in forward: self.add_models(k, trainings, valid[made[k]], test[made[k]], T, scores)
        for k in dropped: self.add_models(k, 6, valid[made[k]], test[made[k]], extra=self.scores[k])
        for k in corrected: self.add_models(k, 6, valid[made[k]], test[made[k]])
        for k in list_only:
            for r in self.R: self.add(k, r, 5, **self.scores[k][r])
        z = stage.logits(w.train)
        for k in twice:
            p = [softmax(out_of_fold(z, folds[k][r], self.fold[r]), -1) for r in self.R]
            made_ = [argmax_list(*o) for o in zip(p, self.labels)]
            self.named[f'{k} twice'] = [o[0] for o in made_]
            self.scores[f'{k} twice'] = [list_scores(*o, *ys) for o,*ys in zip(made_, self.labels, self.clean)]

    def third(self):
        "Models of what the second round leaves"
        w,stage = self.world,Stage(self.world, self.fit)
        twice = [k for k in self.named if k.endswith('twice')]
        made = {k: [stage.add(r, w.train[r][~self.named[k][r]]) for r in self.R] for k in twice}
        stage.train()
        valid,test = stage.logits(w.valid),stage.logits(w.test)
        for k in twice: self.add_models(k, 11, valid[made[k]], test[made[k]], extra=self.scores[k])

    def __call__(self):
        torch.set_num_threads(1)
        self.first()
        self.lists()
        if self.is_rare:
            for k,scores in self.scores.items():
                for r in self.R: self.add(k, r, 5, **scores[r])
        else:
            self.second()
            self.third()
        return pd.DataFrame(self.rows).reindex(columns=columns)

# The plan

long_noises = 'none', 'symmetric 20', 'by class 30'

def plan():
    groups = dict(development=(development, rare_development), **{'held-out': (held_out, rare_held_out)})
    for group,(names,rare) in groups.items():
        yield from ((o, noise, 'short', group) for o in names for noise in noises)
        yield from ((o, noise, 'short', group) for o in rare for noise in rare_noises)
        yield from ((o, noise, 'long', group) for o in names for noise in long_noises)

quick = [('iris', 'none', 'short', 'held-out'), ('iris', 'symmetric 20', 'short', 'held-out'),
         ('car_origin', 'by class 30', 'short', 'development'),
         ('digits rare 8', 'elsewhere 20', 'short', 'development')]

def run(jobs, path, cache=None):
    "The cells that are still missing"
    from fastprogress.fastprogress import progress_bar
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)
    done = set(table[keys[:3]].drop_duplicates().itertuples(index=False, name=None))
    jobs = [o for o in jobs if o[:3] not in done]
    if not has_cleanlab: print("cleanlab is not installed (pip install -r study/requirements.txt): left out")
    start = time.perf_counter()
    for job in progress_bar(jobs):
        made = Run(*job, cache)()
        table = made if table.empty else pd.concat([table, made])
        save(table, path)
    if jobs: print(f'{len(jobs)} cells in {(time.perf_counter()-start)/60:.1f} minutes')
    return table

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--report', action='store_true')
    parser.add_argument('--group', choices=['development', 'held-out'])
    parser.add_argument('--regime', choices=['short', 'long'])
    parser.add_argument('--cache', type=Path)
    args = parser.parse_args()
    path = here/('quick_issues.csv' if args.quick else 'issues.csv')
    jobs = quick if args.quick else list(plan())
    jobs = [o for o in jobs if args.group in (None, o[3]) and args.regime in (None, o[2])]
    if args.cache: args.cache.mkdir(parents=True, exist_ok=True)
    if not args.report: run(jobs, path, args.cache)
    from study.issues_report import report
    print(report(pd.read_csv(path), args.group or 'held-out'))

if __name__ == '__main__': main()
